//go:build linux

package demo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/lab"
)

// logLine is what the demo reads of `vpnctl logs -o jsonl`.
type logLine struct {
	Service   string `json:"service"`
	Level     string `json:"level"`
	Event     string `json:"event"`
	RequestID string `json:"request_id"`
	Fields    struct {
		Lane string `json:"lane"`
	} `json:"fields"`
}

func (l logLine) String() string { return l.Level + " " + l.Service + " " + l.Event }

// day is what the log must have of alice's day, in this order. The change to lane
// tor is among it: sessions notes it some seconds later, when it reads counters.
var day = [...]string{
	"info users user.created", "info auth device.created", "info auth auth.login", "info sessions session.opened",
	"info tor tor.exit_changed", "info tor tor.newid",
	"info sessions session.closed", "info users user.suspended", "warn auth auth.refused",
}

func (s *story) logs() error {
	s.title("The log tells alice's day, across services")
	lines, err := s.wholeDay()
	if err != nil {
		return err
	}
	if err := s.run(lab.Server, "", "vpnctl", "logs", "user=alice"); err != nil {
		return err
	}
	for _, step := range []struct {
		of, what string
		services []string
	}{
		{"session.opened", "one connection, from its request on", []string{"gateway", "sessions", "lanes"}},
		{"user.suspended", "one command of the operator", []string{"control", "users", "sessions", "lanes"}},
	} {
		at := slices.IndexFunc(lines, func(l logLine) bool { return l.Event == step.of })
		if lines[at].RequestID == "" {
			return fmt.Errorf("%s names no request", step.of)
		}
		query := "request_id=" + lines[at].RequestID
		all, err := s.logLines(query)
		if err != nil {
			return err
		}
		for _, service := range step.services {
			if !slices.ContainsFunc(all, func(l logLine) bool { return l.Service == service }) {
				return fmt.Errorf("%s says nothing of the request of %s: %v", service, step.of, all)
			}
		}
		s.say("%s:", step.what)
		if err := s.run(lab.Server, "", "vpnctl", "logs", query); err != nil {
			return err
		}
	}
	return s.run(lab.Server, "", "vpnctl", "logs", "histogram", "--by", "level", "--bucket", "5s")
}

// wholeDay waits until all lines of alice's day are taken in.
func (s *story) wholeDay() ([]logLine, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		lines, err := s.logLines("user=alice")
		if err != nil {
			return nil, err
		}
		found, throughTor := 0, false
		for _, l := range lines {
			throughTor = throughTor || l.Event == "session.lane_changed" && l.Fields.Lane == "tor"
			if found < len(day) && l.String() == day[found] {
				found++
			}
		}
		if found == len(day) && throughTor {
			return lines, nil
		}
		if time.Now().After(deadline) {
			lacks := "the change to lane tor"
			if found < len(day) {
				lacks = day[found]
			}
			return nil, fmt.Errorf("the log lacks %q of alice's day: %v", lacks, lines)
		}
		select {
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logLines gives the lines that a query finds, the oldest first.
func (s *story) logLines(query string) ([]logLine, error) {
	out, err := s.Vpnctl(s.ctx, "logs", query, "-o", "jsonl").Output()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	var lines []logLine
	for text := range strings.Lines(string(out)) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}
