package service

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// newLogger writes JSON lines to stdout and to a rotated file of the service's
// own. Keys are ts, level, service, event.
func newLogger(a Assignment) (*slog.Logger, func()) {
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(a.Config.Log.Level)) // validated with the configuration
	file := &lumberjack.Logger{
		Filename:   filepath.Join(a.LogDir, a.Service+".log"),
		MaxSize:    a.Config.Log.MaxSize,
		MaxBackups: a.Config.Log.Keep,
	}
	return NewLogger(bestEffort{os.Stdout, file}, a.Service, level), func() { _ = file.Close() }
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
