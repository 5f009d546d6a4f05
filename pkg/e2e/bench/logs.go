//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vpnd/pkg/api/logs"
)

// logBench is what the rows of the log service share: vpnd reads the files in
// one folder, and answers on control.sock as it does for vpnctl.
type logBench struct {
	dir   string // what the service reads
	stage string // where files are made before they are moved there
	rows  int    // lines of the corpus
	days  []logDay
	taken *logsTaken // nil until the corpus is in
	sql   *sqlFloor  // nil until a row needs it
	quiet []answer   // nil until asked
}

// logDay is one day of the corpus.
type logDay struct {
	from time.Time
	rows int
	path string // of the file with its lines
}

// dayRows is how many lines a day has at most.
const dayRows = 1_000_000

// rowsEnv says how many lines the corpus has.
const rowsEnv = "LOGS_ROWS"

func logRows(o options) (int, error) {
	text := os.Getenv(rowsEnv)
	if text == "" {
		return pick(o, 1_000_000, 100_000), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 10_000 || n > 100_000_000 {
		return 0, fmt.Errorf("%s is %q: from 10000 to 100000000 lines are possible", rowsEnv, text)
	}
	return n, nil
}

// prepareLogs starts vpnd with a folder of log files of our own.
func prepareLogs(ctx context.Context, s *suite) (end func() error, err error) {
	rows, err := logRows(s.options)
	if err != nil {
		return nil, err
	}
	l := &logBench{dir: filepath.Join(s.tmp, "log"), stage: filepath.Join(s.tmp, "stage"), rows: rows}
	// The log service runs under an account of its own.
	if err := os.Chmod(s.tmp, 0o711); err != nil {
		return nil, err
	}
	for _, dir := range []string{l.dir, l.stage} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			return nil, err
		}
	}
	// The days that ended last: the newest line is of yesterday.
	n := (rows + dayRows - 1) / dayRows
	midnight := time.Now().UTC().Truncate(24 * time.Hour)
	for i := range n {
		day := logDay{from: midnight.AddDate(0, 0, i-n), rows: rows / n / sqlRows * sqlRows}
		day.path = filepath.Join(l.dir, "vpnd-"+day.from.Format(time.DateOnly)+".log")
		l.days = append(l.days, day)
	}
	l.rows = n * l.days[0].rows
	if err := s.WriteConfig(s.Config() + l.config(0)); err != nil {
		return nil, err
	}
	if err := s.running(ctx); err != nil {
		return nil, err
	}
	s.logs = l
	return func() error { return l.sql.close() }, nil
}

// config keeps everything, or no more than so many MiB.
func (l *logBench) config(mib int) string {
	return fmt.Sprintf("\n[logs]\ndirs = [%q]\nmax_age = \"0s\"\nmax_size_mib = %d\n", l.dir, mib)
}

// traffic makes the lines of a day of the corpus.
func (d logDay) traffic(seed int) *logTraffic {
	return newLogTraffic(uint64(seed), d.from, 24*time.Hour/time.Duration(d.rows))
}

// logsProcess is the process id of the log service.
func (s *suite) logsProcess() (int, error) {
	services, _, err := s.processes()
	if err != nil {
		return 0, err
	}
	pid, ok := services["logs"]
	if !ok {
		return 0, errors.New("the log service does not run")
	}
	return pid, nil
}

// logsPeak is the greatest memory that the log service had, in MiB.
func (s *suite) logsPeak() (float64, error) {
	pid, err := s.logsProcess()
	if err != nil {
		return 0, err
	}
	peak, _, err := resident(pid)
	return peak, err
}

// logsQuiet waits until the log service has nothing more to do, and gives the
// processor time that it has used.
func (s *suite) logsQuiet(ctx context.Context) (float64, error) {
	pid, err := s.logsProcess()
	if err != nil {
		return 0, err
	}
	was := -1.0
	for quiet := 0; quiet < 2; {
		now, err := processorTime(pid)
		if err != nil {
			return 0, err
		}
		quiet++
		if now > was+2*clockTick {
			quiet = 0
		}
		was = now
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return was, nil
}

// logsFound returns when a line with this request id can be found.
func (s *suite) logsFound(ctx context.Context, request string, every time.Duration) error {
	req := &logs.QueryRequest{Ask: logs.Ask{Query: "request_id=" + request}, Limit: 1, Order: "newest"}
	for {
		list, err := logs.Query.Call(ctx, s.ops, req)
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return nil
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}
