-- the hundred records of which a probability is nearest to its threshold, and its distance
SELECT * FROM (
    SELECT i.job_id, a.name AS archive, r.path, m.name AS model, m.version, p.norm, p.mi, p.sttc, p.cd, p.hyp,
           (SELECT MIN(d) FROM (SELECT ABS(p.norm - m.threshold_norm) AS d UNION ALL SELECT ABS(p.mi - m.threshold_mi)
            UNION ALL SELECT ABS(p.sttc - m.threshold_sttc) UNION ALL SELECT ABS(p.cd - m.threshold_cd)
            UNION ALL SELECT ABS(p.hyp - m.threshold_hyp)) AS each_of_them) AS distance
    FROM (SELECT job_id, number FROM chunks  -- the hundred are in the hundred chunks with the least margins
          WHERE job_id = COALESCE(:job, job_id) ORDER BY margin LIMIT 100) c
    JOIN job_items i ON i.job_id = c.job_id AND i.chunk = c.number
    JOIN jobs j ON j.id = i.job_id
    JOIN archives a ON a.id = j.archive_id
    JOIN models m ON m.id = j.model_id
    JOIN predictions p ON p.recording_id = i.recording_id AND p.model_id = j.model_id
    JOIN recordings r ON r.id = i.recording_id) AS candidates
WHERE distance IS NOT NULL  -- as of classes of one's own
ORDER BY distance, job_id, path
LIMIT 100
