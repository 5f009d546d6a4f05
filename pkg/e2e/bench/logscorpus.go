//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"vpnd/pkg/logline"
)

// logEntry is one line of a log file, with what the floors need of it.
type logEntry struct {
	at                                         time.Time
	level                                      logline.Level
	service, event, message, user, request, by string // by is the peer's name
	dur, try                                   int
	ok                                         bool
}

// logTraffic makes lines like those of vpnd: always the same for a seed.
type logTraffic struct {
	r    *rand.Rand
	from time.Time
	step time.Duration // between two lines
	made int
}

func newLogTraffic(seed uint64, from time.Time, step time.Duration) *logTraffic {
	return &logTraffic{r: rand.New(rand.NewPCG(seed, seed)), from: from, step: step}
}

var (
	logServices = []string{"control", "gateway", "keys", "auth", "users", "ipam", "sessions", "lanes", "tor", "logs", "host", "web"}
	logSubjects = []string{"peer", "lease", "token", "session", "circuit"}
	logVerbs    = []string{"added", "removed", "refused", "renewed", "checked", "failed", "seen", "kept"}
	logLanes    = []string{"vpn", "tor"}
)

const logPeers, logUsers = 50_000, 2000

func (g *logTraffic) next(e *logEntry) {
	r := g.r
	// Each in a stretch of its own, so that no two have the same time.
	e.at = g.from.Add(time.Duration(g.made)*g.step + time.Duration(r.Int64N(int64(g.step)))).Truncate(time.Microsecond)
	g.made++
	e.level = logline.Info
	switch n := r.IntN(1000); {
	case n < 2:
		e.level = logline.Fatal
	case n < 20:
		e.level = logline.Error
	case n < 80:
		e.level = logline.Warn
	case n < 300:
		e.level = logline.Debug
	}
	peer := r.IntN(logPeers)
	e.service = logServices[r.IntN(len(logServices))]
	e.event = logSubjects[r.IntN(len(logSubjects))] + "_" + logVerbs[r.IntN(len(logVerbs))]
	e.by = fmt.Sprintf("p%05d", peer)
	e.message = fmt.Sprintf("peer %s at 10.8.%d.%d took %d bytes in lane %s", e.by, peer>>8, peer&255, r.IntN(1<<20), logLanes[r.IntN(2)])
	e.user = "user" + strconv.Itoa(peer%logUsers)
	e.request = fmt.Sprintf("%016x", r.Uint64())
	e.dur, e.try, e.ok = r.IntN(3000), r.IntN(4), r.IntN(9) > 0
}

// appendLine writes the entry as vpnd's logger would. Nothing in it needs an
// escape.
func (e *logEntry) appendLine(b []byte) []byte {
	b = append(b, `{"ts":"`...)
	b = e.at.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	for _, f := range [...][2]string{
		{"level", e.level.String()}, {"service", e.service}, {"event", e.event}, {"message", e.message},
		{"user", e.user}, {"request_id", e.request}, {"peer", e.by},
	} {
		b = append(b, `","`...)
		b = append(b, f[0]...)
		b = append(b, `":"`...)
		b = append(b, f[1]...)
	}
	b = append(b, `","dur_ms":`...)
	b = strconv.AppendInt(b, int64(e.dur), 10)
	b = append(b, `,"try":`...)
	b = strconv.AppendInt(b, int64(e.try), 10)
	b = append(b, `,"ok":`...)
	b = strconv.AppendBool(b, e.ok)
	return append(b, "}\n"...)
}

// linesAWrite is how many lines the floor appends at once, and puts into one
// transaction.
const linesAWrite = 5000

// writeLogFile makes a file of n lines, of which the last one has the request
// id last when that is not empty. It tells how long the bare writes took with the
// fsync at the end: the floor of taking the lines in.
func writeLogFile(path string, g *logTraffic, n int, last string) (bytes int64, took time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var buf []byte
	var e logEntry
	for i := range n {
		g.next(&e)
		if i == n-1 && last != "" {
			e.request = last
		}
		buf = e.appendLine(buf)
		if (i+1)%linesAWrite != 0 && i != n-1 {
			continue
		}
		began := time.Now()
		if _, err := f.Write(buf); err != nil {
			return 0, 0, err
		}
		took += time.Since(began)
		bytes += int64(len(buf))
		buf = buf[:0]
	}
	began := time.Now()
	err = f.Sync()
	return bytes, took + time.Since(began), err
}
