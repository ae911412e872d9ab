-- Where a run's process answers over HTTP, `host:port`; only of use on the machine that it runs on.
ALTER TABLE runs ADD COLUMN address TEXT;
