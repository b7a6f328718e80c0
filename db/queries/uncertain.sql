-- the hundred records whose probabilities lie nearest to 0.5
SELECT archive, path, model, version, norm, mi, sttc, cd, hyp,
       ABS(norm - 0.5) + ABS(mi - 0.5) + ABS(sttc - 0.5) + ABS(cd - 0.5) + ABS(hyp - 0.5) AS distance
FROM results
ORDER BY distance, archive, path
LIMIT 100
