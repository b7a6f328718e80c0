-- records per superclass, by archive and model, at a probability of 0.5 and above
SELECT archive, model, version, COUNT(*) AS records,
       SUM(CASE WHEN norm >= 0.5 THEN 1 ELSE 0 END) AS norm,
       SUM(CASE WHEN mi >= 0.5 THEN 1 ELSE 0 END) AS mi,
       SUM(CASE WHEN sttc >= 0.5 THEN 1 ELSE 0 END) AS sttc,
       SUM(CASE WHEN cd >= 0.5 THEN 1 ELSE 0 END) AS cd,
       SUM(CASE WHEN hyp >= 0.5 THEN 1 ELSE 0 END) AS hyp
FROM results
GROUP BY archive, model, version
ORDER BY archive, model, version
