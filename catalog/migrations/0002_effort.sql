-- What a commit cost the table: live files of which rows were superseded, bytes of the files that hold the batch's rows,
-- and all bytes written for the commit but its JSON.
ALTER TABLE commits ADD COLUMN files_touched BIGINT NOT NULL DEFAULT 0;
ALTER TABLE commits ADD COLUMN batch_bytes   BIGINT NOT NULL DEFAULT 0;
ALTER TABLE commits ADD COLUMN bytes_written BIGINT NOT NULL DEFAULT 0;
