//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/logline"
)

const (
	followRate  = 5000 // lines a second
	followEvery = 50   // one line of so many is of the user who is followed
	followGoal  = 50   // ms, p95
	followUser  = "alice"
	marked      = "mark" // before the number of a line, as its request id
)

// logsFollow is how long a line that is written takes to come to somebody who
// follows, beside a program that only reads the end of the file.
func logsFollow(ctx context.Context, s *suite) error {
	if _, err := s.takeIn(ctx); err != nil {
		return err
	}
	if _, err := s.logsQuiet(ctx); err != nil {
		return err
	}
	pid, err := s.logsProcess()
	if err != nil {
		return err
	}
	before, err := processorTime(pid)
	if err != nil {
		return err
	}
	some, err := s.follow(ctx, "some.log", "user="+followUser, pick(s.options, 6*time.Second, 2*time.Second))
	if err != nil {
		return err
	}
	after, err := processorTime(pid)
	if err != nil {
		return err
	}
	all, err := s.follow(ctx, "all.log", "", pick(s.options, 3*time.Second, 2*time.Second))
	if err != nil {
		return err
	}
	r := result{
		Name: "logs-follow", What: fmt.Sprintf("logs, a new line to a follower while %d/s come in, p95", followRate), Unit: inMillis,
		Value: some.came.quantile(0.95), Floor: some.read.quantile(0.95),
		FloorIs: "a program that waits for inotify and reads what was appended to the file, at the same time",
	}
	r.goal("50 ms", r.Value <= followGoal && some.missed == 0)
	r.keep("follow", some.came)
	r.keep("floor", some.read)
	r.note("%s filter, one line of %d: p50 %.2f, p95 %.2f, worst %.2f ms, n=%d, missed %d; floor p50 %.2f", "user="+followUser, followEvery,
		some.came.median(), some.came.quantile(0.95), some.came.max(), len(some.came), some.missed, some.read.median())
	r.note("every line: p50 %.2f, p95 %.2f, worst %.2f ms, n=%d, missed %d; floor p50 %.2f, p95 %.2f", all.came.median(), all.came.quantile(0.95),
		all.came.max(), len(all.came), all.missed, all.read.median(), all.read.quantile(0.95))
	r.note("the service used %.0f %% of a core meanwhile", (after-before)/some.took.Seconds()/10)
	s.report.add(r)
	return nil
}

// followed is how long lines took to come.
type followed struct {
	came, read samples
	missed     uint64
	took       time.Duration
}

// sent is when each line was written, by its number.
type sent struct {
	mu sync.Mutex
	at []time.Time
}

func (s *sent) now() (number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
	return len(s.at) - 1
}

// since is how long ago the line with this request id was written.
func (s *sent) since(request string) (number int, d time.Duration, ok bool) {
	now := time.Now()
	text, found := strings.CutPrefix(request, marked)
	n, err := strconv.Atoi(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !found || err != nil || n < 0 || n >= len(s.at) {
		return 0, 0, false
	}
	return n, now.Sub(s.at[n]), true
}

var errLastCame = errors.New("the last line has come")

// follow writes lines to a file for a time, one write each, while one stream
// and one bare reader wait for them.
func (s *suite) follow(ctx context.Context, name, query string, d time.Duration) (*followed, error) {
	l := s.logs
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	every := followEvery
	if query == "" {
		every = 1
	}
	// The first half second is not counted, the last marked line ends it.
	first := int(warmUp.Seconds() * followRate)
	total := first + int(d.Seconds()*followRate)/every*every
	last := total - every

	out := &followed{}
	var when sent
	ctx, cancel := context.WithTimeoutCause(ctx, warmUp+2*d+10*time.Second, errors.New("the last line does not come to the follower"))
	defer cancel()
	tailing, endTail := context.WithCancel(ctx)
	defer endTail()
	tail, stream := make(chan error, 1), make(chan error, 1)
	go func() {
		tail <- tailFile(tailing, f.Name(), func(line []byte) bool {
			n, d, ok := when.since(requestOf(line))
			if ok && n >= first && n%every == 0 {
				out.read.add(d)
			}
			return ok && n >= last
		})
	}()
	go func() {
		err := logs.Follow.Follow(ctx, s.ops, &logs.FollowRequest{Ask: logs.Ask{Query: query}}, func(r logs.Record) error {
			n, d, ok := when.since(r.RequestID)
			out.missed += r.Missed
			if ok && n >= first {
				out.came.add(d)
			}
			if ok && n >= last {
				return errLastCame
			}
			return nil
		})
		if errors.Is(err, errLastCame) {
			err = nil
		}
		stream <- err
	}()
	if err := s.followers(ctx, 1); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := writeAtRate(ctx, f, &when, total, every); err != nil {
		return nil, err
	}
	if err := <-stream; err != nil {
		return nil, err
	}
	out.took = time.Since(began)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := <-tail; err != nil {
		return nil, err
	}
	return out, s.followers(ctx, 0)
}

// followers returns when so many follow.
func (s *suite) followers(ctx context.Context, n int) error {
	for {
		st, err := logs.GetStatus.Call(ctx, s.ops, nil)
		if err != nil {
			return err
		}
		if st.Followers == n {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// writeAtRate writes lines as loggers do, each with a write of its own. One of
// so many is of the user who is followed.
func writeAtRate(ctx context.Context, f *os.File, when *sent, total, every int) error {
	g := newLogTraffic(0, time.Time{}, busyLine)
	var e logEntry
	var buf []byte
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for n := 0; n < total; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * followRate); n < min(due, total); n++ {
			g.next(&e)
			e.at, e.level = time.Now().UTC(), logline.Info
			if n%every == 0 {
				e.user = followUser
			}
			e.request = marked + strconv.Itoa(n)
			buf = e.appendLine(buf[:0])
			when.now()
			if _, err := f.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// requestOf finds the request id of a line without reading all of it.
func requestOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`"request_id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(id)
}

// tailFile calls fn for every whole line that comes to be in a file until it
// says that this was the last.
func tailFile(ctx context.Context, path string, fn func([]byte) (last bool)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	defer context.AfterFunc(ctx, func() { _ = events.Close() })()
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var rest []byte
	buf, event := make([]byte, 256<<10), make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		rest = append(rest, buf[:n]...)
		for {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			if fn(line) {
				return nil
			}
			rest = after
		}
		if n > 0 {
			continue
		}
		if _, err := events.Read(event); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}
