CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE archives (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	root TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (root)
);

CREATE TABLE models (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	version TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	config JSON NOT NULL, 
	created_at DATETIME NOT NULL, threshold_norm FLOAT DEFAULT '0.5', threshold_mi FLOAT DEFAULT '0.5', threshold_sttc FLOAT DEFAULT '0.5', threshold_cd FLOAT DEFAULT '0.5', threshold_hyp FLOAT DEFAULT '0.5', 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint)
);

CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	archive_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	priority TEXT NOT NULL, 
	total BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, windows TEXT DEFAULT 'first' NOT NULL, rescore TEXT DEFAULT 'none' NOT NULL, active_at DATETIME, worked_seconds FLOAT DEFAULT '0' NOT NULL, leads_missing TEXT DEFAULT 'refuse' NOT NULL, embeddings BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(archive_id) REFERENCES archives (id), 
	FOREIGN KEY(model_id) REFERENCES models (id)
);

CREATE TABLE recordings (
	id INTEGER NOT NULL, 
	archive_id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	age FLOAT, 
	sex SMALLINT, format TEXT, device TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(archive_id) REFERENCES archives (id), 
	UNIQUE (archive_id, path)
);

CREATE TABLE chunks (
	job_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	size INTEGER NOT NULL, 
	scored INTEGER DEFAULT '0' NOT NULL, 
	reused INTEGER DEFAULT '0' NOT NULL, 
	failed INTEGER DEFAULT '0' NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	queued_at DATETIME, 
	lease_until DATETIME, 
	worker TEXT, 
	task_id TEXT, norm INTEGER DEFAULT '0' NOT NULL, mi INTEGER DEFAULT '0' NOT NULL, sttc INTEGER DEFAULT '0' NOT NULL, cd INTEGER DEFAULT '0' NOT NULL, hyp INTEGER DEFAULT '0' NOT NULL, flagged INTEGER DEFAULT '0' NOT NULL, margin FLOAT DEFAULT '1' NOT NULL, 
	PRIMARY KEY (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX chunks_by_state ON chunks (state, job_id, number);

CREATE TABLE failures (
	job_id INTEGER NOT NULL, 
	recording_id INTEGER NOT NULL, 
	stage TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	failed_at DATETIME NOT NULL, 
	PRIMARY KEY (job_id, recording_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id), 
	FOREIGN KEY(recording_id) REFERENCES recordings (id)
);

CREATE INDEX failures_by_recording ON failures (recording_id);

CREATE TABLE job_items (
	job_id INTEGER NOT NULL, 
	recording_id INTEGER NOT NULL, 
	chunk INTEGER NOT NULL, rescore BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (job_id, recording_id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id), 
	FOREIGN KEY(recording_id) REFERENCES recordings (id)
)
 WITHOUT ROWID

;

CREATE TABLE "predictions" (
	recording_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	norm FLOAT, 
	mi FLOAT, 
	sttc FLOAT, 
	cd FLOAT, 
	hyp FLOAT, 
	input_sha256 TEXT NOT NULL, 
	flags TEXT NOT NULL, 
	scored_at DATETIME NOT NULL, 
	worker TEXT NOT NULL, amplitude FLOAT, limb_residual FLOAT, 
	PRIMARY KEY (recording_id, model_id), 
	FOREIGN KEY(job_id, recording_id) REFERENCES job_items (job_id, recording_id)
)
 WITHOUT ROWID

;

CREATE TABLE database_identity (
	id TEXT NOT NULL, 
	PRIMARY KEY (id)
);

CREATE TABLE windows (
	recording_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	start_s FLOAT NOT NULL, 
	norm FLOAT NOT NULL, 
	mi FLOAT NOT NULL, 
	sttc FLOAT NOT NULL, 
	cd FLOAT NOT NULL, 
	hyp FLOAT NOT NULL, 
	PRIMARY KEY (recording_id, model_id, start_s), 
	FOREIGN KEY(recording_id, model_id) REFERENCES predictions (recording_id, model_id)
)
 WITHOUT ROWID

;

CREATE TABLE workers (
	name TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	seen_at DATETIME NOT NULL, 
	expected_by DATETIME, 
	processes INTEGER NOT NULL, 
	device TEXT NOT NULL, 
	kernel TEXT NOT NULL, 
	model TEXT NOT NULL, 
	problem TEXT, 
	PRIMARY KEY (name)
);

CREATE VIEW job_progress AS
SELECT job_id, state, total, scored + reused AS scored, reused, failed,
       total - scored - reused - failed AS remaining,
       CASE WHEN seconds > 0 THEN scored / seconds END AS records_per_second
FROM (
    SELECT j.id AS job_id, j.state, j.total,
           COALESCE(SUM(c.scored), 0) AS scored,
           COALESCE(SUM(c.reused), 0) AS reused,
           COALESCE(SUM(c.failed), 0) AS failed,
           j.worked_seconds + CASE WHEN j.finished_at IS NULL AND j.active_at IS NOT NULL
               THEN MIN((julianday('now') - julianday(j.active_at)) * 86400, 1) ELSE 0 END AS seconds
    FROM jobs j LEFT JOIN chunks c ON c.job_id = j.id
    GROUP BY j.id
) AS job;

CREATE TABLE job_workers (
	job_id INTEGER NOT NULL, 
	worker TEXT NOT NULL, 
	records BIGINT NOT NULL, 
	first_scored_at DATETIME NOT NULL, 
	last_scored_at DATETIME NOT NULL, 
	PRIMARY KEY (job_id, worker), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE TABLE embeddings (
	recording_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	features BLOB NOT NULL, 
	PRIMARY KEY (recording_id, model_id), 
	FOREIGN KEY(recording_id, model_id) REFERENCES predictions (recording_id, model_id)
)
 WITHOUT ROWID

;

CREATE TABLE model_classes (
	model_id INTEGER NOT NULL, 
	position SMALLINT NOT NULL, 
	name TEXT NOT NULL, 
	threshold FLOAT NOT NULL, 
	PRIMARY KEY (model_id, position), 
	FOREIGN KEY(model_id) REFERENCES models (id), 
	UNIQUE (model_id, name)
);

CREATE TABLE class_probabilities (
	recording_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	position SMALLINT NOT NULL, 
	probability FLOAT NOT NULL, 
	PRIMARY KEY (recording_id, model_id, position), 
	FOREIGN KEY(recording_id, model_id) REFERENCES predictions (recording_id, model_id)
)
 WITHOUT ROWID

;

CREATE VIEW results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version,
       p.norm, p.mi, p.sttc, p.cd, p.hyp, p.scored_at, p.flags,
       CASE WHEN p.norm >= m.threshold_norm THEN 1 ELSE 0 END AS has_norm,
       CASE WHEN p.mi >= m.threshold_mi THEN 1 ELSE 0 END AS has_mi,
       CASE WHEN p.sttc >= m.threshold_sttc THEN 1 ELSE 0 END AS has_sttc,
       CASE WHEN p.cd >= m.threshold_cd THEN 1 ELSE 0 END AS has_cd,
       CASE WHEN p.hyp >= m.threshold_hyp THEN 1 ELSE 0 END AS has_hyp
FROM predictions p
JOIN recordings r ON r.id = p.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = p.model_id
WHERE p.norm IS NOT NULL;

CREATE VIEW class_results AS
SELECT a.name AS archive, r.path, r.age, r.sex, m.name AS model, m.version, c.name AS class, o.probability,
       CASE WHEN o.probability >= c.threshold THEN 1 ELSE 0 END AS has, p.scored_at, p.flags
FROM class_probabilities o
JOIN model_classes c ON c.model_id = o.model_id AND c.position = o.position
JOIN predictions p ON p.recording_id = o.recording_id AND p.model_id = o.model_id
JOIN recordings r ON r.id = o.recording_id
JOIN archives a ON a.id = r.archive_id
JOIN models m ON m.id = o.model_id;

CREATE INDEX job_items_by_chunk ON job_items (job_id, chunk, rescore);

INSERT INTO alembic_version VALUES ('0010');

INSERT INTO database_identity VALUES (lower(hex(randomblob(16))));

