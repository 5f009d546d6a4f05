package logstore

import (
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"vpnd/pkg/logline"
)

// What a decoder may allocate for a blob: a count in it is not to be believed.
const (
	fuzzBase    = 1 << 20
	fuzzPerByte = 1000
)

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// modest fails when fn allocates more than size bytes of input explain. What
// goes on in the background counts too, so there is some room.
func modest(t *testing.T, size int, fn func()) {
	t.Helper()
	before := allocated()
	fn()
	if n := allocated() - before; n > fuzzBase+16<<20+uint64(size)*fuzzPerByte {
		t.Errorf("%d bytes allocated for a blob of %d", n, size)
	}
}

func fuzzRows(n int) []row {
	rows := make([]row, n)
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for i := range rows {
		at += int64(i * 977)
		r := logline.Record{
			Level: logline.Level(i % 7), Service: []string{"auth", "tor", ""}[i%3], Event: "sign-in", User: "user" + strconv.Itoa(i%40),
			Message: fmt.Sprintf("peer p%d of %d", i*7919, i), File: "/var/log/a.log", Cut: i%50 == 0,
		}
		if i%3 == 0 {
			r.Fields = []logline.Field{{Key: "dur_ms", Value: strconv.Itoa(i), Kind: logline.Number}, {Key: "seldom" + strconv.Itoa(i), Value: "x"}}
		}
		rows[i] = row{ID{at, int64(i)}, r}
	}
	return rows
}

// fuzzDay is the file of a day with one segment and one mini.
func fuzzDay(f *testing.F) *conn {
	f.Helper()
	dir := f.TempDir()
	s, err := Open(f.Context(), Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	s.SetChunkRows(600)
	pos := int64(0)
	for _, n := range []int{600, 50} {
		b := Batch{File: FileID{Path: "/a"}, From: pos}
		for _, r := range fuzzRows(n) {
			r.rec.Time = microTime(r.id.Time)
			pos++
			b.Rows = append(b.Rows, Row{Offset: pos, Record: r.rec})
		}
		b.To = pos
		if err := s.Append(f.Context(), b); err != nil {
			f.Fatal(err)
		}
		if err := s.Settle(f.Context()); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	c, err := openConn(filepath.Join(dir, "2026-03-01.db"), toWrite)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.close() })
	return c
}

// seeds adds blobs of a real day, without their frames.
func seeds(f *testing.F, c *conn, query string, add func(body []byte)) {
	f.Helper()
	n := 0
	err := c.each(query+" LIMIT 20", func(r []driver.Value) error {
		body, err := openFrame(r[0].([]byte))
		if n++; err == nil {
			add([]byte(body))
		}
		return err
	})
	if err != nil || n == 0 {
		f.Fatal(n, err)
	}
}

func frame(body []byte) []byte { return sealFrame(append(newFrame(len(body)), body...)) }

func FuzzMini(f *testing.F) {
	seeds(f, fuzzDay(f), "SELECT data FROM mini", func(b []byte) { f.Add(b) })
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() {
			rows, err := decodeMini(frame(body))
			if err != nil {
				return
			}
			again, err := decodeMini(encodeMini(rows))
			if err != nil || len(again) != len(rows) {
				t.Errorf("%d rows, then %d, %v", len(rows), len(again), err)
			}
		})
	})
}

func FuzzSources(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() { _ = decodeSources(frame(body), func(int64, int64) {}) })
	})
}

func FuzzColumn(f *testing.F) {
	seeds(f, fuzzDay(f), "SELECT data FROM col", func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() {
			c, err := openColumn(string(body))
			if err != nil {
				return
			}
			for i := range min(c.n, 2000) {
				_ = c.at(i)
			}
			for i := range min(c.count(), 2000) {
				_ = c.val(i)
			}
			if c.form == formInts {
				_ = c.search(77)
			}
		})
	})
}

func FuzzShape(f *testing.F) {
	f.Add([]byte("\x01\x06dur_ms\x00\x01x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() { _, _ = parseShape(string(body)) })
	})
}

func FuzzChunks(f *testing.F) {
	seeds(f, fuzzDay(f), "SELECT chunks FROM segment", func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() {
			chunks, err := decodeChunks(frame(body))
			if err != nil {
				return
			}
			for i := range chunks {
				c, at := &chunks[i], 0
				for b := range c.countBlocks() {
					from, to := c.span(b)
					if from != at || to <= from || to > c.n {
						t.Fatalf("block %d of %d rows is %d to %d", b, c.n, from, to)
					}
					at = to
				}
				if at != c.n {
					t.Fatalf("blocks have %d of %d rows", at, c.n)
				}
				if c.tmax < c.tmin || c.tmax-c.tmin > microsADay {
					t.Fatalf("a chunk of %d microseconds", c.tmax-c.tmin)
				}
			}
		})
	})
}

func FuzzLeaf(f *testing.F) {
	seeds(f, fuzzDay(f), "SELECT data FROM leaf", func(b []byte) {
		f.Add(b, []byte("p"), true)
		f.Add(b, []byte("peer"), false)
	})
	f.Fuzz(func(t *testing.T, body, want []byte, prefix bool) {
		const n = 700
		modest(t, len(body), func() {
			set := newBitset(n)
			_ = scanLeaf(frame(body), want, prefix, func(_ []byte, body string) (bool, error) {
				return prefix, eachPosting(body, func(_ int, posting string) error { return readPosting(posting, n, set) })
			})
			if set.next(n) >= 0 {
				t.Error("a row that is none")
			}
		})
	})
}

func FuzzRollup(f *testing.F) {
	seeds(f, fuzzDay(f), "SELECT data FROM rollup", func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() {
			r, err := openRollup(frame(body))
			if err != nil {
				return
			}
			for i := range r.groups {
				_ = r.services[r.groups[i].service]
				_ = r.groups[i].minutes(func(int64, int64) error { return nil })
			}
		})
	})
}

func FuzzZone(f *testing.F) {
	w := newZoneWriter()
	w.value("dur_ms", "17", 0)
	w.value("name", "x", 1)
	f.Add([]byte(w.encode()))
	f.Fuzz(func(t *testing.T, body []byte) {
		modest(t, len(body), func() { _, _, _ = eachZone(string(body), func(string, *zone) bool { return true }) })
	})
}

func FuzzBlock(f *testing.F) {
	c := fuzzDay(f)
	seeds(f, c, "SELECT data FROM block", func(b []byte) { f.Add(b) })
	var ch *chunk
	err := c.each(segmentQuery, func(r []driver.Value) error {
		seg, err := readSegment(r)
		if err == nil {
			ch = &seg.chunks[0]
		}
		return err
	})
	if err != nil || ch == nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := c.run("UPDATE block SET data=? WHERE id=?", frame(body), blockID(ch.no, 0)); err != nil {
			t.Fatal(err)
		}
		modest(t, len(body), func() {
			rd, err := newReading(c)
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := rd.block(ch, 0)
			if err != nil {
				return
			}
			all := make([]int, p.n)
			for i := range all {
				all[i] = i
			}
			_ = p.records(all, func(int, row) error { return nil })
			for _, name := range []string{"service", "level", "message", "dur_ms", "seldom3", "none"} {
				v, err := p.view(name)
				if err != nil {
					continue
				}
				for i := range p.n {
					if code, ok := v.code(i); ok {
						_ = v.val(code)
					}
				}
			}
		})
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("1.1")
	f.Add(ID{1 << 50, 7}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil && id.String() != text {
			t.Errorf("%q is %v", text, id)
		}
	})
}
