package logstore

import (
	"encoding/binary"
	"time"

	"vpnd/pkg/logline"
)

// row is a record inside the store.
type row struct {
	id  ID
	rec logline.Record
}

// rowSize is about how much memory a record takes.
func rowSize(r *logline.Record) int {
	n := 320 + len(r.Service) + len(r.Event) + len(r.Message) + len(r.User) + len(r.Device) + len(r.Session) + len(r.RequestID)
	for i := range r.Fields {
		n += 40 + len(r.Fields[i].Key) + len(r.Fields[i].Value)
	}
	return n
}

// encodeMini writes rows one after the other, as they arrived: the form of
// those that wait to become part of a segment.
func encodeMini(rows []row) []byte {
	b := newFrame(len(rows) * 256)
	b = binary.AppendUvarint(b, uint64(len(rows)))
	for i := range rows {
		b = binary.AppendUvarint(b, uint64(rows[i].id.Time)) // two's complement: before 1970 is long but right
		b = binary.AppendUvarint(b, uint64(rows[i].id.Seq))
		b = appendRecord(b, &rows[i].rec)
	}
	return sealFrame(b)
}

func appendRecord(b []byte, r *logline.Record) []byte {
	flags := byte(r.Level)
	if r.Cut {
		flags |= 0x80
	}
	b = append(b, flags)
	for s := range slotNames {
		b = appendString(b, *slotOf(r, s))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Fields)))
	for i := range r.Fields {
		f := &r.Fields[i]
		b = append(b, byte(f.Kind))
		b = appendString(b, f.Key)
		b = appendString(b, f.Value)
	}
	return b
}

// The least that a row and a field take: counts are not believed beyond that.
const (
	minRow   = 4 + len(slotNames) // time, arrival, level, slots, fields
	minField = 3                  // kind, key, value
)

func decodeMini(blob []byte) ([]row, error) {
	body, err := openFrame(blob)
	if err != nil {
		return nil, err
	}
	r := reader{b: body}
	n := r.int()
	if r.bad || n > len(body)/minRow {
		return nil, errDamaged
	}
	rows := make([]row, n)
	for i := range rows {
		rows[i].id.Time = int64(r.uvarint())
		rows[i].id.Seq = int64(r.uvarint())
		readRecord(&r, &rows[i].rec)
		rows[i].rec.Time = microTime(rows[i].id.Time)
	}
	if r.bad {
		return nil, errDamaged
	}
	return rows, nil
}

func readRecord(r *reader, rec *logline.Record) {
	flags := r.byte()
	rec.Level, rec.Cut = logline.Level(flags&0x7f), flags&0x80 != 0
	for s := range slotNames {
		*slotOf(rec, s) = r.string()
	}
	n := r.int()
	if n == 0 || r.bad || n > r.left()/minField {
		r.bad = r.bad || n > 0
		return
	}
	rec.Fields = make([]logline.Field, n)
	for i := range rec.Fields {
		f := &rec.Fields[i]
		f.Kind = logline.Kind(r.byte())
		f.Key = r.string()
		f.Value = r.string()
	}
}

func microTime(us int64) time.Time { return time.UnixMicro(us).UTC() }

// slotNames are the names with a place of their own in a record, in the order
// of their columns.
var slotNames = [...]string{"service", "event", "message", "user", "device", "session", "request_id", "file"}

const (
	slotService = 0
	slotFile    = 7
)

func slotOf(r *logline.Record, slot int) *string {
	switch slot {
	case slotService:
		return &r.Service
	case 1:
		return &r.Event
	case 2:
		return &r.Message
	case 3:
		return &r.User
	case 4:
		return &r.Device
	case 5:
		return &r.Session
	case 6:
		return &r.RequestID
	}
	return &r.File
}

func slotIndex(name string) int {
	for i, n := range slotNames {
		if n == name {
			return i
		}
	}
	return -1
}
