-- what each worker process scored, and when
SELECT worker, COUNT(*) AS records, MIN(scored_at) AS first_scored_at, MAX(scored_at) AS last_scored_at
FROM predictions
GROUP BY worker
ORDER BY first_scored_at
