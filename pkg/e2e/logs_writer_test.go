//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

const longLine = 1 << 20 // bytes, the most that are kept of a line

// wrote is what a line must be found as.
type wrote struct {
	sum uint64 // of message, level and user
	at  int64  // µs; 0 when the line has no time of its own
}

func sumOf(message, level, user string) uint64 {
	h := fnv.New64a()
	for _, s := range []string{message, "\x00", level, "\x00", user} {
		_, _ = io.WriteString(h, s)
	}
	return h.Sum64()
}

// logWriter appends lines to one file and rotates it. Nothing that it does
// loses lines by itself: a file or its beginning goes away for good only when
// it was read, and no file gets a number before its first line was read, since
// numbered files that nobody knows are not log files.
type logWriter struct {
	w         *logsWorld
	rng       *rand.Rand
	name      string
	path      string
	noise     string
	file      *os.File
	lines     []wrote
	life      int  // the first line of the file as it is now
	late      bool // lines may be of other days
	rotations map[string]int
	err       error
}

func (lw *logWriter) id(i int) string { return fmt.Sprintf("%sx%06d", lw.name, i) }

// bytes is a piece of noise.
func (lw *logWriter) bytes(n int) string {
	at := lw.rng.IntN(len(lw.noise) - n)
	return lw.noise[at : at+n]
}

func (lw *logWriter) size() int {
	switch p := lw.rng.IntN(2000); {
	case p == 0:
		return 100_000 + lw.rng.IntN(800_000)
	case p < 20:
		return 8_000 + lw.rng.IntN(90_000)
	case p < 200:
		return 300 + lw.rng.IntN(8_000)
	}
	return lw.rng.IntN(300)
}

// line makes the next line, without its end.
func (lw *logWriter) line() []byte {
	i := len(lw.lines)
	id := lw.id(i)
	switch kind := lw.rng.IntN(20); {
	case i == 40: // as long as a line may be
		text := id + " " + lw.bytes(longLine-len(id)-1)
		lw.lines = append(lw.lines, wrote{sum: sumOf(text, "", "")})
		return []byte(text)
	case kind == 0: // any bytes
		b := []byte(id + " ")
		for range 1 + lw.rng.IntN(400) {
			c := byte(lw.rng.IntN(256))
			if lw.rng.IntN(8) == 0 {
				c = 0
			}
			if c != '\n' && c != '\r' {
				b = append(b, c)
			}
		}
		text := strings.ReplaceAll(strings.ToValidUTF8(string(b), "\ufffd"), "\x00", "\ufffd")
		lw.lines = append(lw.lines, wrote{sum: sumOf(text, "", "")})
		return b
	case kind < 5:
		text := id + " " + lw.bytes(lw.size())
		lw.lines = append(lw.lines, wrote{sum: sumOf(text, "", "")})
		return []byte(text)
	default:
		o := map[string]string{"id": id, "message": "é \"日\" \\ <" + lw.bytes(lw.size())}
		if lw.rng.IntN(2) == 0 {
			o["level"], o["user"] = "warn", lw.name
		}
		made := wrote{sum: sumOf(o["message"], o["level"], o["user"])}
		if lw.late && lw.rng.IntN(3) == 0 {
			at := time.Now().Add(-time.Duration(lw.rng.Int64N(int64(9 * 24 * time.Hour)))).UTC().Truncate(time.Microsecond)
			o["ts"], made.at = at.Format(time.RFC3339Nano), at.UnixMicro()
		}
		lw.lines = append(lw.lines, made)
		b, _ := json.Marshal(o) // texts always encode
		return b
	}
}

func (lw *logWriter) pause(most time.Duration) { time.Sleep(time.Duration(lw.rng.Int64N(int64(most)))) }

// append writes some lines, now and then in two parts.
func (lw *logWriter) append() error {
	if lw.file == nil {
		if err := os.MkdirAll(filepath.Dir(lw.path), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(lw.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		lw.file, lw.life = f, len(lw.lines)
	}
	// Seldom, since an append of several days is another thing than one of today.
	lw.late = lw.rng.IntN(15) == 0
	var b bytes.Buffer
	for range 1 + lw.rng.IntN(30) {
		b.Write(lw.line())
		b.WriteByte('\n')
	}
	if lw.rng.IntN(8) == 0 {
		if _, err := lw.file.Write(b.Next(lw.rng.IntN(b.Len()))); err != nil {
			return err
		}
		lw.pause(200 * time.Millisecond)
	}
	_, err := lw.file.Write(b.Bytes())
	return err
}

// taken waits until a line is in the store.
func (lw *logWriter) taken(ctx context.Context, i int) error {
	for {
		n, err := lw.w.count(lw.id(i))
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("line %s is not taken in (%d, %w)", lw.id(i), n, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (lw *logWriter) close() error {
	f := lw.file
	lw.file = nil
	return f.Close()
}

// rotate puts the file, whose first line is known to be taken, out of the way.
func (lw *logWriter) rotate(ctx context.Context) error {
	n := 0
	for _, k := range lw.rotations {
		n += k
	}
	numbered := fmt.Sprintf("%s.%d", lw.path, n)
	kinds := []string{"rename", "rename with half a line", "rename with no last end", "rename to a log file", "copy and truncate", "delete", "truncate", "replace"}
	kind := kinds[lw.rng.IntN(len(kinds))]
	lw.rotations[kind]++
	switch kind {
	case "rename":
		return errors.Join(os.Rename(lw.path, numbered), lw.close())
	case "rename to a log file":
		return errors.Join(os.Rename(lw.path, strings.TrimSuffix(lw.path, ".log")+fmt.Sprintf("-%d.log", n)), lw.close())
	case "rename with half a line":
		line := append(lw.line(), '\n')
		half := lw.rng.IntN(len(line))
		_, err := lw.file.Write(line[:half])
		err = errors.Join(err, os.Rename(lw.path, numbered))
		lw.pause(300 * time.Millisecond)
		_, more := lw.file.Write(line[half:])
		return errors.Join(err, more, lw.close())
	case "rename with no last end":
		_, err := lw.file.Write(lw.line())
		return errors.Join(err, os.Rename(lw.path, numbered), lw.close())
	case "copy and truncate":
		data, err := os.ReadFile(lw.path)
		err = errors.Join(err, os.WriteFile(numbered, data, 0o644), os.Truncate(lw.path, 0))
		lw.life = len(lw.lines)
		return errors.Join(err, lw.close())
	}
	if err := lw.taken(ctx, len(lw.lines)-1); err != nil {
		return err
	}
	switch kind {
	case "delete":
		return errors.Join(os.Remove(lw.path), lw.close())
	case "truncate":
		return errors.Join(os.Truncate(lw.path, 0), lw.close())
	}
	fresh := lw.path + ".new"
	err := os.WriteFile(fresh, append(lw.line(), '\n'), 0o644)
	return errors.Join(err, os.Rename(fresh, lw.path), lw.close())
}

func (lw *logWriter) run(ctx context.Context, rotated *atomic.Int64, enough func() bool) error {
	for !enough() {
		err := lw.append()
		if err == nil {
			err = lw.taken(ctx, lw.life)
		}
		if err != nil {
			return err
		}
		for range 2 + lw.rng.IntN(20) {
			lw.pause(60 * time.Millisecond)
			if err := lw.append(); err != nil {
				return err
			}
		}
		if err := lw.rotate(ctx); err != nil {
			return err
		}
		rotated.Add(1)
	}
	return lw.append()
}
