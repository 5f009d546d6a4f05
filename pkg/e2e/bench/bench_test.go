//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
)

func TestQuantile(t *testing.T) {
	for name, c := range map[string]struct {
		in   samples
		q    float64
		want float64
	}{
		"nothing":             {nil, 0.5, 0},
		"one":                 {samples{7}, 0.99, 7},
		"median of odd":       {samples{3, 1, 2}, 0.5, 2},
		"median of even":      {samples{4, 1, 3, 2}, 0.5, 2},
		"p90 of ten":          {samples{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.9, 9},
		"all":                 {samples{5, 9, 1}, 1, 9},
		"smallest of several": {samples{5, 9, 1}, 0, 1},
	} {
		if got := c.in.quantile(c.q); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestQuantileKeepsTheOrderOfSamples(t *testing.T) {
	s := samples{3, 1, 2}
	s.median()
	if diff := cmp.Diff(samples{3, 1, 2}, s); diff != "" {
		t.Error(diff)
	}
}

// TestLoadCountsPartsOfCalls has calls that take longer than the warm-up and
// end after the counted time: the rate must still be what the clients did.
func TestLoadCountsPartsOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := load(t.Context(), 4, 2*time.Second, func(int, int) error {
			time.Sleep(300 * time.Millisecond)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := 4 / 0.3; got.rate < want-0.01 || got.rate > want+0.01 {
			t.Errorf("rate: got %v, want %v", got.rate, want)
		}
		// From 0.5 s to 2.5 s: each client ends calls at 0.6, 0.9, … 2.4 s.
		if len(got.times) != 4*7 {
			t.Errorf("counted calls: got %d, want %d", len(got.times), 4*7)
		}
		if got.times.median() != 300 {
			t.Errorf("median: got %v ms, want 300", got.times.median())
		}
	})
}

func TestLoadEndsWithTheFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		began := time.Now()
		_, err := load(t.Context(), 3, time.Minute, func(client, i int) error {
			time.Sleep(10 * time.Millisecond)
			if client == 1 && i == 2 {
				return broken
			}
			return nil
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the others went on for %v", took)
		}
	})
}

func TestSpreadOutDoesEachOnce(t *testing.T) {
	done := make([]int, 100)
	if err := spreadOut(t.Context(), 7, len(done), func(_, i int) error { done[i]++; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, n := range done {
		if n != 1 {
			t.Errorf("%d was done %d times", i, n)
		}
	}
}

func TestSpreadOutEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := spreadOut(ctx, 2, 1000, func(_, i int) error {
		if i == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) S (b) S 1 42 42 0 -1 4194560 100 0 0 0 31 7 0 0 20 0 9 0 100 1000000 500 18446744073709551615"
	got, err := parseStat(line)
	if err != nil || got != 380 {
		t.Errorf("got %v, %v, want 380", got, err)
	}
	for _, bad := range []string{"", "42 (a", "42 (a) S 1 2", "42 (a) S 1 42 42 0 -1 4194560 100 0 0 0 x 7 0"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken for a line of stat", bad)
		}
	}
}

func TestProcessorTimeOfThisProcess(t *testing.T) {
	if _, err := processorTime(os.Getpid()); err != nil {
		t.Error(err)
	}
	if m, err := proportional(os.Getpid()); err != nil || m <= 0 {
		t.Errorf("memory: got %v, %v", m, err)
	}
}

func TestParseRollup(t *testing.T) {
	got, err := parseRollup("55d0-7ffc ---p 00000000 00:00 0  [rollup]\nRss:  9000 kB\nPss:                2560 kB\nPss_Anon: 1 kB\n")
	if err != nil || got != 2.5 {
		t.Errorf("got %v, %v, want 2.5", got, err)
	}
	if _, err := parseRollup("Rss: 1 kB\n"); err == nil {
		t.Error("a text without Pss was taken")
	}
}

func TestTable(t *testing.T) {
	r := &report{Machine: "2 cores", Began: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 100}
	good := result{What: "a time", Value: 3.5, Unit: inMillis, Floor: 1, FloorIs: "what it cannot be under"}
	good.goal("4 ms and 4x", true)
	good.note("more about it")
	missed := result{What: "a rate", Value: 12345.6, Unit: perSecond}
	missed.goal("20000/s", false)
	r.add(good)
	r.add(missed)
	r.add(result{What: "a wreck", Err: "it broke"})
	var b bytes.Buffer
	r.print(&b)
	const want = `2 cores
2030-01-02 03:04 UTC, 100 s

WHAT     MEASURED  FLOOR    RATIO  GOAL         REACHED
a time   3.50 ms   1.00 ms  3.50   4 ms and 4x  yes
a rate   12346 /s  -        -      20000/s      no
a wreck  failed    -        -      -            -

a time
  floor: what it cannot be under
  more about it

a wreck
  failed: it broke
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestSamplesAreWritten(t *testing.T) {
	r := &report{}
	row := result{Name: "x"}
	row.keep("times", samples{1, 2})
	r.add(row)
	path := filepath.Join(t.TempDir(), "out.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples{1, 2}, back.Rows[0].Samples["times"]); diff != "" {
		t.Error(diff)
	}
}

func TestRowNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range rowNames() {
		if seen[n] || strings.ContainsAny(n, " ,") {
			t.Errorf("row name %q", n)
		}
		seen[n] = true
	}
}

func TestJudgeTellsCutOffFromFailed(t *testing.T) {
	at := time.Now()
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	deaths := []killed{{service: "auth", at: ms(100), gone: ms(105)}}
	broken := errors.New("broken")
	got := judge([]observed{
		{"a", ms(0), ms(10), nil},
		{"a", ms(90), ms(120), broken},  // on its way
		{"a", ms(103), ms(120), broken}, // met the dying process
		{"a", ms(106), ms(120), broken}, // began after it had gone
		{"a", ms(10), ms(20), broken},   // nothing was killed
	}, deaths)
	if got.Value != 2 || *got.Reached {
		t.Errorf("got %v failed calls, reached %v; want 2, false", got.Value, *got.Reached)
	}
}

func TestCountKnowsAttemptsBehindTheExits(t *testing.T) {
	at := time.Now()
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	exit, other := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.1")
	packet := func(when int, src netip.Addr, port uint16) lab.Packet {
		return lab.Packet{Time: ms(when), Src: src, Dst: lab.TargetV4, Proto: unix.IPPROTO_TCP, DstPort: port}
	}
	began := map[uint16]time.Time{10: ms(5), 11: ms(15), 12: ms(16), 13: ms(35), 14: ms(9)}
	windows := []window{{ms(10), ms(20)}, {ms(30), ms(40)}}
	got := count(began, windows, []lab.Packet{
		packet(6, exit, 10), packet(7, exit, 10), // while the lane was up
		packet(14, exit, 14),  // on its way when the call returned
		packet(18, exit, 11),  // begun after the return
		packet(25, exit, 12),  // sent again when the lane was up
		packet(36, other, 13), // not from an exit
		packet(37, exit, 13), packet(38, exit, 13),
		packet(12, exit, 80), // not of the flood
	}, map[netip.Addr]bool{exit: true})
	if want := (passed{during: 3, packets: 3, open: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
