-- the records whose input was mended or filled in, and how
SELECT archive, path, age, sex, flags, model, version
FROM results
WHERE flags <> ''
ORDER BY archive, path
