-- the records whose input was mended or filled in, and how, by job
SELECT c.job_id, a.name AS archive, r.path, r.age, r.sex, p.flags, m.name AS model, m.version
FROM chunks c
CROSS JOIN job_items i
JOIN jobs j ON j.id = c.job_id
JOIN archives a ON a.id = j.archive_id
JOIN models m ON m.id = j.model_id
JOIN predictions p ON p.recording_id = i.recording_id AND p.model_id = j.model_id
JOIN recordings r ON r.id = i.recording_id
WHERE c.job_id = COALESCE(:job, c.job_id) AND c.flagged > 0
  AND i.job_id = c.job_id AND i.chunk = c.number AND p.flags <> ''  -- unsorted: to sort millions keeps the first waiting
