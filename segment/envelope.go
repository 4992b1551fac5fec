package segment

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"
)

// Keys of the footer's metadata.
const (
	envelopeKey = "afterimage-segment"
	notesKey    = "afterimage-notes"
)

// notes are for people who meet a segment without its documentation.
const notes = "One row is one committed change. Rows sort by (table, key, time, order). time and born_time of MongoDB: seconds << 32 | ordinal. " +
	"op: 1 insert, 2 put, 3 patch, 4 delete, 5 unknown. from: 0 log, 1 image, 2 late. body of MongoDB: BSON. " +
	"Format: docs/format/segment.md of afterimage."

// envelope is the JSON under envelopeKey: what a segment says about itself.
type envelope struct {
	Version int    `json:"version"`
	KeyID   string `json:"keyID"` // "none": not encrypted
	Meta    Meta   `json:"meta"`  // without Bytes and Sum, which a file can't hold of itself
}

// writeFooter appends the Parquet footer with the envelope in it.
func (w *Writer) writeFooter() error {
	env, err := json.Marshal(envelope{Version: FormatVersion, KeyID: "none", Meta: w.meta})
	if err != nil {
		return err
	}
	if err := w.file.AppendKeyValueMetadata(envelopeKey, string(env)); err != nil {
		return err
	}
	if err := w.file.AppendKeyValueMetadata(notesKey, notes); err != nil {
		return err
	}
	fm, err := w.file.Finish()
	if err != nil {
		return err
	}
	start := w.sink.Tell()
	if _, err := fm.WriteTo(&w.sink, nil); err != nil {
		return err
	}
	w.sink.buf = binary.LittleEndian.AppendUint32(w.sink.buf, uint32(w.sink.Tell()-start))
	w.sink.buf = append(w.sink.buf, parquetMagic...)
	return nil
}

// ReadMeta reads what an object says about itself; Bytes and Sum are taken from data. It does not check the rows: see
// [Verify].
func ReadMeta(data []byte) (Meta, error) {
	const tail = 4 + len(parquetMagic)
	if len(data) < len(parquetMagic)+tail || string(data[:4]) != parquetMagic || string(data[len(data)-4:]) != parquetMagic {
		return Meta{}, fmt.Errorf("not a segment, or cut off: %d bytes that do not begin and end with %s", len(data), parquetMagic)
	}
	n := int64(binary.LittleEndian.Uint32(data[len(data)-tail:]))
	if n > int64(len(data)-tail-len(parquetMagic)) {
		return Meta{}, fmt.Errorf("cut off or damaged: the footer claims %d bytes of an object of %d", n, len(data))
	}
	footer := data[int64(len(data)-tail)-n : len(data)-tail]
	text, err := footerValue(footer, envelopeKey)
	if err != nil {
		return Meta{}, fmt.Errorf("damaged footer: %w", err)
	}
	if text == nil {
		return Meta{}, errors.New("a Parquet file, but not a segment: its footer has no " + envelopeKey)
	}
	return readEnvelope(text, data, n)
}

func readEnvelope(text, data []byte, footer int64) (Meta, error) {
	var head struct {
		Version int    `json:"version"`
		KeyID   string `json:"keyID"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return Meta{}, fmt.Errorf("damaged envelope: %w", err)
	}
	if head.Version != FormatVersion {
		return Meta{}, fmt.Errorf("format version %d, this program reads %d: use a newer afterimage", head.Version, FormatVersion)
	}
	if head.KeyID != "none" {
		return Meta{}, fmt.Errorf("encrypted with key %q, which this program can't use", head.KeyID)
	}
	var env envelope
	if err := json.Unmarshal(text, &env); err != nil {
		return Meta{}, fmt.Errorf("damaged envelope: %w", err)
	}
	m := env.Meta
	m.Bytes, m.Sum = int64(len(data)), xxh3.Hash(data)
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	if m.Index.Offset+m.Index.Length > m.Bytes-footer {
		return Meta{}, errors.New("damaged envelope: the key index reaches into the footer")
	}
	return m, nil
}

// check refuses a description that can't be true, so that reading by it stays within the object.
func (m *Meta) check() error {
	if m.KeyID != "" && m.KeyID != "none" {
		return fmt.Errorf("segment %s: encrypted with key %q, which this program can't use", m.ID, m.KeyID)
	}
	x := m.Index
	if x.Offset < int64(len(parquetMagic)) || x.Length < indexHeader || x.Length > pageBytesMax || x.Offset > m.Bytes || x.Length > m.Bytes-x.Offset {
		return fmt.Errorf("segment %s: impossible place of the key index: offset %d, length %d of %d bytes", m.ID, x.Offset, x.Length, m.Bytes)
	}
	if m.Rows <= 0 || m.MinTime > m.MaxTime || m.Last.Compare(m.First) < 0 {
		return fmt.Errorf("segment %s: impossible description: %d rows, times %s to %s", m.ID, m.Rows, m.MinTime, m.MaxTime)
	}
	return nil
}
