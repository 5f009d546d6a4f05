package supervise

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

func within(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want*8/10 || got > want*12/10 {
		t.Errorf("%s: pause %v, want about %v", what, got, want)
	}
}

func TestPausesGrowAndDeathsAreForgotten(t *testing.T) {
	timing := Timing{}.withDefaults()
	var s streak
	if pause, _ := s.died(timing, 0, true); pause != 0 {
		t.Errorf("the first restart waits %v", pause)
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800} {
		pause, failed := s.died(timing, 0, true)
		within(t, fmt.Sprint("death ", i+2), pause, want*time.Millisecond)
		if failed {
			t.Fatalf("failed after %d deaths", i+2)
		}
	}
	for range 3 {
		pause, failed := s.died(timing, 0, true)
		within(t, "failed", pause, time.Minute)
		if !failed {
			t.Error("not failed after 10 deaths")
		}
	}
	pause, failed := s.died(timing, 8*time.Second, true)
	within(t, "8 s of being ready", pause, 200*time.Millisecond)
	if failed {
		t.Error("still failed after 8 s of being ready")
	}
	if pause, _ := s.died(timing, time.Hour, true); pause != 0 {
		t.Errorf("after an hour of being ready the restart waits %v", pause)
	}
	var never streak
	pause, _ = never.died(timing, 0, false)
	within(t, "could not be started", pause, 100*time.Millisecond)
	if pause, _ := s.died(Timing{FailAfter: 1 << 30}.withDefaults(), 0, true); pause > 36*time.Second {
		t.Errorf("pause %v", pause)
	}
}

func TestStopOrderOnRandomGraphs(t *testing.T) {
	for range 200 {
		n := 1 + rand.IntN(12)
		after := map[string][]string{}
		for i := range n {
			after[fmt.Sprint(i)] = nil
			for j := range i { // only to smaller numbers: no circle
				if rand.IntN(3) == 0 {
					after[fmt.Sprint(i)] = append(after[fmt.Sprint(i)], fmt.Sprint(j))
				}
			}
		}
		after["0"] = append(after["0"], "not in the set")
		var mu sync.Mutex
		var order []string
		inStopOrder(after, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		})
		if len(order) != n {
			t.Fatalf("%d stops for %d names", len(order), n)
		}
		for name, needs := range after {
			for _, need := range needs {
				if at := slices.Index(order, need); at >= 0 && slices.Index(order, name) > at {
					t.Fatalf("%s after %s, which it needs: %v", name, need, order)
				}
			}
		}
	}
}

func TestPong(t *testing.T) {
	for _, tt := range []struct {
		line   string
		ready  bool
		reason string
		ok     bool
	}{
		{`{"status":"pong"}`, true, "", true},
		{`{"status":"pong","ready":true,"more":{"x":1}}`, true, "", true},
		{`{"status":"pong","ready":false,"reason":"no keys yet\u001b[31m\n"}`, false, "no keys yet [31m", true},
		{`{"status":"pong","ready":"no"}`, false, "", false},
		{`{"status":"error"}`, false, "", false},
		{`{"status":"pong"} {"status":"pong"}`, false, "", false},
		{`pong`, false, "", false},
		{`[]`, false, "", false},
		{`null`, false, "", false},
		{``, false, "", false},
	} {
		ready, reason, err := parsePong([]byte(tt.line))
		if ready != tt.ready || reason != tt.reason || (err == nil) != tt.ok {
			t.Errorf("%s: %v %q %v", tt.line, ready, reason, err)
		}
	}
}

func FuzzPong(f *testing.F) {
	f.Add([]byte(`{"status":"pong","ready":false,"reason":"no keys yet"}`))
	f.Add([]byte(`{"status":"` + strings.Repeat("é", 40) + `"}`))
	f.Add([]byte("{\"status\":\"pong\",\"reason\":\"" + strings.Repeat("\\u0000日", 200) + "\"}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		ready, reason, err := parsePong(line)
		if err != nil && (ready || reason != "" || len(err.Error()) > 200) {
			t.Errorf("%v %q with error %q", ready, reason, err)
		}
		if len(reason) > maxReason+len("…") || !utf8.ValidString(reason) || strings.ContainsAny(reason, "\n\x1b\x00") {
			t.Errorf("reason %q", reason)
		}
	})
}

func TestOutputSplitsLinesLikeAnObviousReader(t *testing.T) {
	for range 50 {
		var text strings.Builder
		for range rand.IntN(60) {
			text.WriteString(strings.Repeat("x", []int{0, rand.IntN(6000), maxLine - 1 + rand.IntN(3), rand.IntN(100_000)}[rand.IntN(4)]))
			if rand.IntN(8) > 0 {
				text.WriteByte('\n')
			}
		}
		s := newSink(nil)
		o, w, err := newOutput(s, tailLines)
		if err != nil {
			t.Fatal(err)
		}
		go o.read()
		if _, err := w.WriteString(text.String()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		<-o.done
		var want, got []string
		for line := range strings.Lines(text.String()) {
			line = strings.TrimSuffix(line, "\n")
			if len(line) > maxLine {
				line = fmt.Sprintf("%s … %d bytes more", line[:maxLine], len(line)-maxLine)
			}
			want = append(want, line)
		}
		for len(s.lines) > 0 {
			got = append(got, strings.TrimSuffix(string(<-s.lines), "\n"))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d lines, want %d", len(got), len(want))
		}
		tail := o.lines()
		for i, line := range want[max(0, len(want)-tailLines):] {
			if !strings.HasPrefix(line, tail[i]) || len(tail[i]) != min(len(line), tailLine) {
				t.Fatalf("tail line %d is %.50q", i, tail[i])
			}
		}
	}
}
