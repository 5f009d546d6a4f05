package logstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// Whoever can write lines must not be able to fill the memory with the values
// that somebody counts: neither many nor long ones.
func TestValuesToCountAreBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, logstore.Options{Dir: t.TempDir()})
	noise := strings.Repeat("x", 100<<10)
	pos := int64(0)
	for range 10 {
		b := logstore.Batch{File: source, From: pos}
		for range 10 {
			pos += int64(len(noise))
			b.Rows = append(b.Rows, logstore.Row{Offset: pos, Record: logline.Record{
				Time: base.Add(time.Duration(pos) * time.Microsecond), Message: fmt.Sprint(pos, noise), Service: "a", File: "/a.log",
			}})
		}
		b.To = pos
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := s.Top(t.Context(), logquery.Query{}, logstore.Limits{}, "message", 10)
	if !errors.Is(err, fault.Exhausted) || fault.ReasonOf(err) != "groups" || fault.From(err).Hint == "" {
		t.Errorf("10 MB of values: %v", err)
	}
	if g, n, err := s.Top(t.Context(), logquery.Query{}, logstore.Limits{}, "service", 10); err != nil || n != 100 || len(g) != 1 {
		t.Errorf("%v, %d, %v", g, n, err)
	}
}
