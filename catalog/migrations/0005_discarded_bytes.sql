-- Of the bytes written for a commit, those of data files that held late rows and were removed before it.
ALTER TABLE commits ADD COLUMN discarded_bytes BIGINT NOT NULL DEFAULT 0;
