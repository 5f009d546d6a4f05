package logstore_test

import (
	"bufio"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
)

// traffic makes records like those of a day of vpnd, a million a day.
type traffic struct {
	r  *rand.Rand
	at time.Time
}

func newTraffic() *traffic { return &traffic{rand.New(rand.NewPCG(1, 1)), base} }

var (
	benchServices = []string{"control", "gateway", "keys", "auth", "users", "ipam", "sessions", "lanes", "tor", "logs", "host", "web"}
	benchEvents   = func() (out []string) {
		for i := range 40 {
			out = append(out, fmt.Sprintf("%s_%s", []string{"peer", "lease", "token", "session", "circuit"}[i%5], []string{"added", "removed", "refused", "renewed", "checked", "failed", "seen", "kept"}[i/5]))
		}
		return out
	}()
)

func (g *traffic) next() logline.Record {
	r := g.r
	g.at = g.at.Add(time.Duration(r.IntN(172_800)) * time.Microsecond)
	level := logline.Info
	switch n := r.IntN(1000); {
	case n < 2:
		level = logline.Fatal
	case n < 20:
		level = logline.Error
	case n < 80:
		level = logline.Warn
	case n < 300:
		level = logline.Debug
	}
	peer := r.IntN(50_000)
	return logline.Record{
		Time: g.at, Level: level, Service: benchServices[r.IntN(12)], Event: benchEvents[r.IntN(40)],
		Message: fmt.Sprintf("peer p%05d at 10.8.%d.%d took %d bytes in lane %s", peer, peer>>8, peer&255, r.IntN(1<<20), []string{"vpn", "tor"}[r.IntN(2)]),
		User:    "user" + strconv.Itoa(peer%2000), File: "/var/log/vpnd/vpnd.log",
		RequestID: fmt.Sprintf("%016x", r.Uint64()),
		Fields: []logline.Field{
			{Key: "dur_ms", Value: strconv.Itoa(r.IntN(3000)), Kind: logline.Number},
			{Key: "peer", Value: fmt.Sprintf("p%05d", peer)},
			{Key: "try", Value: strconv.Itoa(r.IntN(4)), Kind: logline.Number},
			{Key: "ok", Value: strconv.FormatBool(r.IntN(9) > 0), Kind: logline.Bool},
		},
	}
}

// batches are n records in batches of the size that a busy reader brings.
func (g *traffic) batches(n int) (out []logstore.Batch) {
	const size = 4000
	pos := int64(0)
	for n > 0 {
		b := logstore.Batch{File: source, From: pos}
		for range min(n, size) {
			pos += 280
			b.Rows = append(b.Rows, logstore.Row{Offset: pos, Record: g.next()})
		}
		b.To = pos
		n -= len(b.Rows)
		out = append(out, b)
	}
	return out
}

const ingestRows = 200_000

func reportRate(b *testing.B, bytes int64, cpu time.Duration) {
	n := float64(b.N) * ingestRows
	b.ReportMetric(n/cpu.Seconds(), "rows/cpu-s")
	b.ReportMetric(n/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(bytes)/ingestRows, "B/row")
}

// BenchmarkIngest is until everything is indexed.
func BenchmarkIngest(b *testing.B) {
	batches := newTraffic().batches(ingestRows)
	bytes, before := int64(0), cpuTime()
	for b.Loop() {
		dir := b.TempDir()
		s, err := logstore.Open(b.Context(), logstore.Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range batches {
			if err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Settle(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		bytes = folderSize(b, dir)
	}
	reportRate(b, bytes, cpuTime()-before)
}

// BenchmarkFloorAppend writes the same records as lines to a file.
func BenchmarkFloorAppend(b *testing.B) {
	batches := newTraffic().batches(ingestRows)
	bytes, before := int64(0), cpuTime()
	for b.Loop() {
		dir := b.TempDir()
		f, err := os.Create(filepath.Join(dir, "a.jsonl"))
		if err != nil {
			b.Fatal(err)
		}
		w := bufio.NewWriterSize(f, 1<<20)
		for _, batch := range batches {
			for i := range batch.Rows {
				_, _ = w.Write(batch.Rows[i].Record.JSON())
				_ = w.WriteByte('\n')
			}
			if err := w.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		bytes = folderSize(b, dir)
	}
	reportRate(b, bytes, cpuTime()-before)
}

// BenchmarkFloorSQLite writes them to one table with one index, without search.
func BenchmarkFloorSQLite(b *testing.B) {
	batches := newTraffic().batches(ingestRows)
	bytes, before := int64(0), cpuTime()
	for b.Loop() {
		dir := b.TempDir()
		db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "a.db")+"?_journal_mode=WAL&_synchronous=NORMAL")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := db.Exec("CREATE TABLE log (id INTEGER PRIMARY KEY, time INTEGER, service TEXT, level INTEGER, line TEXT); CREATE INDEX by_service ON log (service, level, time)"); err != nil {
			b.Fatal(err)
		}
		for _, batch := range batches {
			tx, err := db.Begin()
			if err != nil {
				b.Fatal(err)
			}
			st, err := tx.Prepare("INSERT INTO log (time, service, level, line) VALUES (?, ?, ?, ?)")
			if err != nil {
				b.Fatal(err)
			}
			for i := range batch.Rows {
				r := &batch.Rows[i].Record
				if _, err := st.Exec(r.Time.UnixMicro(), r.Service, int(r.Level), r.JSON()); err != nil {
					b.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		bytes = folderSize(b, dir)
	}
	reportRate(b, bytes, cpuTime()-before)
}

func folderSize(b *testing.B, dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// cpuTime is what this process has used of the cores: on a shared machine the
// steadier figure.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
