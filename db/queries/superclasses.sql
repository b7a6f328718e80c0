-- records per superclass, by archive and model, at the model's thresholds
SELECT archive, model, version, COUNT(*) AS records,
       SUM(has_norm) AS norm, SUM(has_mi) AS mi, SUM(has_sttc) AS sttc, SUM(has_cd) AS cd, SUM(has_hyp) AS hyp
FROM results
GROUP BY archive, model, version
ORDER BY archive, model, version
