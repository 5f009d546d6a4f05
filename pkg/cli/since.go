package cli

import (
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
)

// since is a flag that takes a point in the past: a duration before now, a
// date, or an RFC 3339 time. The zero value was not given.
type since struct {
	now  func() time.Time
	text string
	t    time.Time
}

func (s *since) String() string { return s.text }
func (s *since) Type() string   { return "when" }

func (s *since) Set(v string) error {
	t, err := parseSince(v, s.now())
	if err != nil {
		return err
	}
	s.text, s.t = v, t
	return nil
}

func parseSince(v string, now time.Time) (time.Time, error) {
	bad := fault.New(fault.Invalid, "%q is no time", v).WithHint("write 90s, 15m, 36h, 7d, 2026-01-31 or 2026-01-31T15:04:05Z")
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return time.Time{}, bad
		}
		return now.AddDate(0, 0, -n), nil
	}
	if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, bad
}
