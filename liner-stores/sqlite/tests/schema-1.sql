-- A file of schema 1, as the release with that schema left it: queues with messages, one of them deleted by hand.
PRAGMA application_id = 1280201265;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE node(
  name TEXT PRIMARY KEY, inbox INTEGER, boot_id TEXT NOT NULL, class INTEGER NOT NULL, clean INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO node VALUES('sensor',3,'boot 1',1,1);
CREATE TABLE topic_addr(
  topic TEXT NOT NULL, addr TEXT NOT NULL, client_name TEXT NOT NULL, PRIMARY KEY(topic, addr)
) WITHOUT ROWID;
INSERT INTO topic_addr VALUES('alarms','127.0.0.1:7420','gateway');
INSERT INTO topic_addr VALUES('readings','127.0.0.1:7420','gateway');
CREATE TABLE topic_key(topic TEXT PRIMARY KEY, k INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conn_key_map(
  composite TEXT NOT NULL UNIQUE, connection_key INTEGER PRIMARY KEY,
  owner TEXT NOT NULL DEFAULT '', kind INTEGER NOT NULL DEFAULT 0, name TEXT NOT NULL DEFAULT '',
  epoch INTEGER NOT NULL DEFAULT 0,
  predecessor_epoch INTEGER, predecessor_old_first INTEGER, predecessor_count INTEGER,
  trimmed INTEGER NOT NULL DEFAULT 0, dropped_through INTEGER, dropped_reason INTEGER,
  last INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
  shift INTEGER NOT NULL DEFAULT 0, stored_epoch INTEGER NOT NULL DEFAULT 0, suspect INTEGER NOT NULL DEFAULT 0,
  crc INTEGER NOT NULL DEFAULT 0
);
INSERT INTO conn_key_map VALUES('sensor::gateway',1,'sensor',0,'gateway',-9223372036854775801,NULL,NULL,NULL,3,NULL,NULL,10,0,0,-9223372036854775801,0,1230667518);
INSERT INTO conn_key_map VALUES('sensor::\tnews',2,'sensor',1,'news',9,NULL,NULL,NULL,0,NULL,NULL,2,0,0,9,0,4071904145);
CREATE TABLE conn_sender(connection_key INTEGER PRIMARY KEY, sender_topic TEXT NOT NULL);
INSERT INTO conn_sender VALUES(1,'');
INSERT INTO conn_sender VALUES(2,'');
CREATE TABLE sender_listener(
  sender_key TEXT NOT NULL, addr TEXT NOT NULL, listener_topic TEXT NOT NULL, client_name TEXT NOT NULL,
  PRIMARY KEY(sender_key, addr)
) WITHOUT ROWID;
CREATE TABLE seq(id INTEGER PRIMARY KEY CHECK(id = 1), v INTEGER NOT NULL);
INSERT INTO seq VALUES(1,2);
CREATE TABLE segments(
  id INTEGER PRIMARY KEY, connection_key INTEGER NOT NULL, epoch INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, messages INTEGER NOT NULL, crc INTEGER NOT NULL,
  composite TEXT NOT NULL, records BLOB NOT NULL
);
INSERT INTO segments VALUES(1,1,-9223372036854775801,1,8,8,4200302702,'sensor::gateway',X'1740010000000000000001000102030405060708090a0b0c244001000000000000000200020406080a0c0e10121416181a1c1e20222426282a2c2e30323140010000000000000003000306090c0f1215181b1e2124272a2d303336393c3f4245484b4e5154575a5d606366696c6f7216400100000000000000040004080c1014181c2024282c234001000000000000000500050a0f14191e23282d32373c41464b50555a5f64696e7378304001000000000000000600060c12181e242a30363c42484e545a60666c72787e848a90969ca2a8aeb4bac0c6ccd2d8de154001000000000000000700070e151c232a31383f4622400100000000000000080008101820283038404850586068707880889098a0a8b0b8');
INSERT INTO segments VALUES(2,1,-9223372036854775801,9,10,2,3396585876,'sensor::gateway',X'2f400100000000000000090009121b242d363f48515a636c757e879099a2abb4bdc6cfd8e1eaf3fc050e172029323b44144001000000000000000a000a141e28323c46505a');
INSERT INTO segments VALUES(3,2,9,1,2,2,1339828216,'sensor::\tnews',X'1740010000000000000001000102030405060708090a0b0c244001000000000000000200020406080a0c0e10121416181a1c1e20222426282a2c2e3032');
CREATE TABLE cleared(
  connection_key INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY(connection_key, number)
) WITHOUT ROWID;
INSERT INTO cleared VALUES(1,5);
CREATE TABLE stream_topic(
  composite TEXT NOT NULL, number INTEGER NOT NULL, topic TEXT NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(composite, number)
) WITHOUT ROWID;
INSERT INTO stream_topic VALUES('sensor::\tnews',1,'news',1859906638);
INSERT INTO stream_topic VALUES('sensor::gateway',1,'readings',3421936095);
CREATE TABLE inbound_cursor(
  owner TEXT NOT NULL, peer TEXT NOT NULL, epoch INTEGER NOT NULL, through INTEGER NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(owner, peer)
) WITHOUT ROWID;
INSERT INTO inbound_cursor VALUES('sensor','p',-9223372036854775801,7,3801516929);
CREATE TABLE dead_letters(
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, peer TEXT NOT NULL, topic TEXT NOT NULL,
  reason INTEGER NOT NULL, crc INTEGER NOT NULL, record BLOB NOT NULL
);
INSERT INTO dead_letters VALUES(1,'sensor','p','t',1,547940200,X'45017478');
CREATE TABLE quarantine(
  id INTEGER PRIMARY KEY, connection_key INTEGER, epoch INTEGER, first INTEGER, last INTEGER, crc INTEGER,
  composite TEXT, bytes BLOB
);
CREATE TABLE byte_order(bytes BLOB NOT NULL);
INSERT INTO byte_order VALUES(X'0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
CREATE INDEX conn_key_map_owner ON conn_key_map(owner);
CREATE VIEW conn_mess_number(connection_key, v) AS SELECT connection_key, trimmed FROM conn_key_map;
CREATE INDEX segments_queue ON segments(connection_key, last);
CREATE VIEW conn_messages(id, connection_key, payload, number, record) AS
WITH RECURSIVE
  step(segment, number, packed, start) AS (
    SELECT s.id, s.first, (CASE WHEN instr(b.bytes, substr(s.records, 1 + 0, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, 1 + 0, 1)) & 127) << 3)) | 1 WHEN instr(b.bytes, substr(s.records, 1 + 1, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, 1 + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, 1 + 1, 1)) & 127) << 10)) | 2 WHEN instr(b.bytes, substr(s.records, 1 + 2, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, 1 + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, 1 + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, 1 + 2, 1)) & 127) << 17)) | 3 WHEN instr(b.bytes, substr(s.records, 1 + 3, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, 1 + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, 1 + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, 1 + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, 1 + 3, 1)) & 127) << 24)) | 4 ELSE (((instr(b.bytes, substr(s.records, 1 + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, 1 + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, 1 + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, 1 + 3, 1)) & 127) << 24) | ((instr(b.bytes, substr(s.records, 1 + 4, 1)) & 127) << 31)) | 5 END), 1 FROM segments s, byte_order b WHERE length(s.records) > 0
    UNION ALL
    SELECT s.id, w.number + iif(instr(b.bytes, substr(s.records, (w.start + (w.packed & 7)), 1)) & 3 = 3, (CASE WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) & 127) << 3)) | 1 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 1, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 1, 1)) & 127) << 10)) | 2 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 2, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 2, 1)) & 127) << 17)) | 3 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 3, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 3, 1)) & 127) << 24)) | 4 ELSE (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 3, 1)) & 127) << 24) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 2) + 4, 1)) & 127) << 31)) | 5 END) >> 3, 1), (CASE WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) & 127) << 3)) | 1 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 1, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 1, 1)) & 127) << 10)) | 2 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 2, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 2, 1)) & 127) << 17)) | 3 WHEN instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 3, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 3, 1)) & 127) << 24)) | 4 ELSE (((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 3, 1)) & 127) << 24) | ((instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + (w.packed >> 3)) + 4, 1)) & 127) << 31)) | 5 END), ((w.start + (w.packed & 7)) + (w.packed >> 3))
    FROM step w JOIN segments s ON s.id = w.segment, byte_order b
    WHERE ((w.start + (w.packed & 7)) + (w.packed >> 3)) <= length(s.records)
  )
SELECT s.id << 24 | (w.number - s.first), s.connection_key, (WITH RECURSIVE h(at, left) AS (
      SELECT (w.start + (w.packed & 7)) + 1 + (instr(b.bytes, substr(s.records, (w.start + (w.packed & 7)), 1)) & 8 <> 0),
        iif(instr(b.bytes, substr(s.records, (w.start + (w.packed & 7)), 1)) & 8 = 0, '', iif(instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 1), 1)) & 1, 'tvv', '') || iif(instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 1), 1)) & 2, 'b', '')
          || iif(instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 1), 1)) & 4, 'v', '') || iif(instr(b.bytes, substr(s.records, ((w.start + (w.packed & 7)) + 1), 1)) & 8, 'v', '')) || iif(instr(b.bytes, substr(s.records, (w.start + (w.packed & 7)), 1)) & 4, 't', 'v')
      UNION ALL
      SELECT h.at + iif(h.left LIKE 't%', ((CASE WHEN instr(b.bytes, substr(s.records, h.at + 0, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3)) | 1 WHEN instr(b.bytes, substr(s.records, h.at + 1, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10)) | 2 WHEN instr(b.bytes, substr(s.records, h.at + 2, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17)) | 3 WHEN instr(b.bytes, substr(s.records, h.at + 3, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, h.at + 3, 1)) & 127) << 24)) | 4 ELSE (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, h.at + 3, 1)) & 127) << 24) | ((instr(b.bytes, substr(s.records, h.at + 4, 1)) & 127) << 31)) | 5 END) & 7) + ((CASE WHEN instr(b.bytes, substr(s.records, h.at + 0, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3)) | 1 WHEN instr(b.bytes, substr(s.records, h.at + 1, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10)) | 2 WHEN instr(b.bytes, substr(s.records, h.at + 2, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17)) | 3 WHEN instr(b.bytes, substr(s.records, h.at + 3, 1)) < 128 THEN (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, h.at + 3, 1)) & 127) << 24)) | 4 ELSE (((instr(b.bytes, substr(s.records, h.at + 0, 1)) & 127) << 3) | ((instr(b.bytes, substr(s.records, h.at + 1, 1)) & 127) << 10) | ((instr(b.bytes, substr(s.records, h.at + 2, 1)) & 127) << 17) | ((instr(b.bytes, substr(s.records, h.at + 3, 1)) & 127) << 24) | ((instr(b.bytes, substr(s.records, h.at + 4, 1)) & 127) << 31)) | 5 END) >> 3), 1),
        iif(h.left LIKE 'v%' AND instr(b.bytes, substr(s.records, h.at, 1)) >= 128, h.left, substr(h.left, 2))
      FROM h WHERE h.left <> '' AND h.at < (w.start + (w.packed & 7)) + (w.packed >> 3)
    ) SELECT substr(s.records, h.at, (w.start + (w.packed & 7)) + (w.packed >> 3) - h.at) FROM h WHERE h.left = ''), w.number + m.shift, substr(s.records, (w.start + (w.packed & 7)), (w.packed >> 3))
FROM step w JOIN segments s ON s.id = w.segment
JOIN conn_key_map m ON m.connection_key = s.connection_key, byte_order b
WHERE w.number + m.shift > max(m.trimmed, coalesce(m.dropped_through, 0))
  AND instr(b.bytes, substr(s.records, (w.start + (w.packed & 7)), 1)) & 3 <> 3
  AND NOT EXISTS (SELECT 1 FROM cleared c WHERE c.connection_key = s.connection_key AND c.number = w.number);
CREATE TRIGGER conn_messages_delete INSTEAD OF DELETE ON conn_messages BEGIN
  INSERT OR IGNORE INTO cleared
  SELECT m.connection_key, OLD.number - m.shift FROM conn_key_map m WHERE m.connection_key = OLD.connection_key;
END;
COMMIT;
