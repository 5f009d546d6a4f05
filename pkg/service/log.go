package service

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"vpnd/pkg/config"
)

// newLogger is OpenLog for a child of the supervisor.
func newLogger(a Assignment) (*slog.Logger, func()) {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(a.Config.Log.Level)) // validated with the configuration
	return OpenLog(a.LogDir, a.Service, a.Config.Log, level)
}

// OpenLog writes JSON lines to stdout and to a rotated file in the service's
// own log folder. Keys are ts, level, service, event.
func OpenLog(dir, name string, c config.Log, level slog.Leveler) (log *slog.Logger, done func()) {
	path := filepath.Join(dir, name+".log")
	letRead(path)
	file := &lumberjack.Logger{Filename: path, MaxSize: c.MaxSize, MaxBackups: c.Keep}
	out := bestEffort{os.Stdout, &wholeLines{w: file, service: name}}
	return NewLogger(out, name, level), func() { _ = file.Close() }
}

// letRead makes the log file one that the group of its folder may read, which
// is the log service. Files that follow it take its mode and owner. One of
// another group, which this process cannot give away, is put with the rotated
// ones.
func letRead(path string) {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return // the logger tells; a service works without its log
	}
	if file, err := os.Lstat(path); err == nil && group(file) != group(dir) {
		_ = os.Rename(path, strings.TrimSuffix(path, ".log")+time.Now().UTC().Format("-2006-01-02T15-04-05.000.log"))
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return
	}
	_ = f.Chmod(0o640)
	_ = f.Close()
}

func group(i os.FileInfo) uint32 {
	st, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Gid
}

// NewLogger makes the JSON logger that services use.
func NewLogger(w io.Writer, name string, level slog.Leveler) *slog.Logger {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return a
		}
		switch a.Key {
		case slog.TimeKey:
			return slog.String("ts", a.Value.Time().UTC().Format(time.RFC3339Nano))
		case slog.MessageKey:
			a.Key = "event"
		}
		return a
	}})
	return slog.New(h).With("service", name)
}

// bestEffort writes everywhere it can: a full disk must not silence stdout,
// and a closed stdout must not stop the file.
type bestEffort []io.Writer

func (b bestEffort) Write(p []byte) (int, error) {
	for _, w := range b {
		_, _ = w.Write(p)
	}
	return len(p), nil
}

// wholeLines keeps a file made of whole lines when the disk fills up in the
// middle of one, and tells how many were lost once there is room again. The
// logger above calls it from one goroutine at a time.
type wholeLines struct {
	w       io.Writer
	service string
	torn    bool // the last line is not whole
	lost    int
}

func (l *wholeLines) Write(p []byte) (int, error) {
	if l.lost > 0 {
		line := fmt.Sprintf(`{"ts":%q,"level":"WARN","service":%q,"event":"log_lines_lost","lost":%d}`+"\n",
			time.Now().UTC().Format(time.RFC3339Nano), l.service, l.lost)
		if l.torn {
			line = "\n" + line
		}
		n, err := io.WriteString(l.w, line)
		if n > 0 {
			l.torn = n < len(line)
		}
		if err != nil {
			l.lost++
			return 0, err
		}
		l.lost = 0
	}
	n, err := l.w.Write(p)
	if err != nil {
		l.lost++
		l.torn = n > 0
	}
	return n, err
}
