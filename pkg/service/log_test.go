package service_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/secret"
	"vpnd/pkg/service"
)

func TestLogLinesHaveTheirKeys(t *testing.T) {
	var b bytes.Buffer
	log := service.NewLogger(&b, "users", slog.LevelInfo)
	log.Debug("not shown")
	log.Warn("user_created", "password", secret.New("hunter2"), "err", errors.New("x"), slog.Group("g", "time", "t", "msg", "m"))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, b.String())
	}
	ts, err := time.Parse(time.RFC3339Nano, line["ts"].(string))
	if err != nil || ts.Location() != time.UTC || time.Since(ts) > time.Minute {
		t.Errorf("ts %v", line["ts"])
	}
	if line["level"] != "WARN" || line["service"] != "users" || line["event"] != "user_created" || line["err"] != "x" || line["time"] != nil || line["msg"] != nil {
		t.Errorf("got %v", line)
	}
	if g := line["g"].(map[string]any); g["time"] != "t" || g["msg"] != "m" {
		t.Errorf("keys inside a group were changed: %v", g)
	}
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("a secret is logged: %s", b.String())
	}
	b.Reset()
	log.Info("a\nb", "path", "x\x00y\x1b[31m")
	if strings.Count(b.String(), "\n") != 1 || strings.ContainsAny(b.String(), "\x00\x1b") {
		t.Errorf("not one plain line: %q", b.String())
	}
}
