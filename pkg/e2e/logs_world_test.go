//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/rpc"
)

// appLogs is a folder of log files that are not vpnd's, on the server.
const appLogs = "/var/log/app"

// logsWorld is a world whose log service reads appLogs, and more if told.
type logsWorld struct {
	*world
	root string // before a path of the server, here
	conn *rpc.Conn
}

// newLogsWorld starts vpnd with the log service reading appLogs and further
// folders. prepare, when not nil, runs in the server machine before that.
func newLogsWorld(t *testing.T, clients int, prepare func() error, dirs ...string) *logsWorld {
	t.Helper()
	w, _ := emptyWorld(t, clients)
	err := w.Machine(lab.Server).Do(func() error {
		if err := os.MkdirAll(appLogs, 0o755); err != nil || prepare == nil {
			return err
		}
		return prepare()
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(append([]string{appLogs}, dirs...))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteConfig(w.Config() + cheap + "\n[logs]\ndirs = " + string(quoted) + "\n"); err != nil {
		t.Fatal(err)
	}
	w.start()
	l := &logsWorld{world: w, root: fmt.Sprintf("/proc/%d/root", w.daemon.PID()), conn: w.control()}
	t.Cleanup(l.conn.CloseIdle)
	return l
}

// at is where a file of the server is found from here.
func (w *logsWorld) at(path ...string) string { return w.root + filepath.Join(path...) }

// write appends to a file of the server.
func (w *logsWorld) write(path, text string) {
	w.t.Helper()
	if err := appendTo(w.at(path), text); err != nil {
		w.t.Fatal(err)
	}
}

func appendTo(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (w *logsWorld) count(query string) (int64, error) {
	n, err := logs.Count.Call(context.Background(), w.conn, &logs.Ask{Query: query})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", query, err)
	}
	return n.Count, nil
}

// counts waits until a query finds so many lines.
func (w *logsWorld) counts(query string, want int64, within time.Duration) {
	w.t.Helper()
	eventually(w.t, within, func() error {
		n, err := w.count(query)
		if err == nil && n != want {
			err = fmt.Errorf("%q finds %d lines, want %d", query, n, want)
		}
		return err
	})
}

func (w *logsWorld) logsStatus() logs.Status {
	w.t.Helper()
	s, err := logs.GetStatus.Call(w.t.Context(), w.conn, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return *s
}

// said is what a program said, and how it ended.
type said struct {
	out, err string
	status   int
}

func (s said) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", s.status, clip(s.out), clip(s.err))
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:1000] + " … " + s[len(s)-1000:]
	}
	return s
}

// on runs a command on the server to its end.
func (w *logsWorld) on(program string, args ...string) said {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := w.CommandContext(ctx, lab.Server, program, args...)
	if program == "sh" {
		env, dir := cmd.Env, cmd.Dir
		cmd = w.Machine(lab.Server).CommandContext(ctx, "/bin/sh", args...)
		cmd.Env, cmd.Dir = env, dir
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		w.t.Fatalf("%s %.200q does not end\n%s", program, args, said{out.String(), errs.String(), -1})
	}
	return said{out.String(), errs.String(), site.ExitStatus(err)}
}

// vpnctl runs vpnctl on the server and fails the test unless it exits with want.
func (w *logsWorld) vpnctl(want int, args ...string) said {
	w.t.Helper()
	s := w.on("vpnctl", args...)
	if s.status != want {
		w.t.Fatalf("vpnctl %.300q: want exit status %d, got %s", args, want, s)
	}
	return s
}

// records are the lines of JSON that a command printed.
func (s said) records(t *testing.T) []logs.Record {
	t.Helper()
	var out []logs.Record
	if err := eachRecord(strings.NewReader(s.out), func(r *logs.Record) { out = append(out, *r) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func eachRecord(from io.Reader, fn func(*logs.Record)) error {
	d := json.NewDecoder(from)
	for {
		var r logs.Record
		switch err := d.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		fn(&r)
	}
}

// export gives every line that `vpnctl logs export` writes.
func (w *logsWorld) export(fn func(*logs.Record), query ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := w.Vpnctl(ctx, append([]string{"logs", "export", "--format", "jsonl"}, query...)...)
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &errs
	err = cmd.Start()
	_ = out.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	err = errors.Join(eachRecord(bufio.NewReaderSize(r, 1<<20), fn), cmd.Wait())
	if err != nil {
		w.t.Fatalf("vpnctl logs export: %v\n%s", err, errs.String())
	}
}

// once fails the test unless export gives just these messages, each once.
func (w *logsWorld) once(want []string, query ...string) {
	w.t.Helper()
	left := map[string]int{}
	for _, m := range want {
		left[m]++
	}
	w.export(func(r *logs.Record) { left[r.Message]-- }, query...)
	bad := 0
	for m, n := range left {
		if n == 0 {
			continue
		}
		if bad++; bad <= 10 {
			w.t.Errorf("%.60q is there %+d times too often", m, -n)
		}
	}
	if bad > 0 {
		w.t.Errorf("%d of %d lines are not there exactly once", bad, len(want))
	}
}
