package torctl_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/torctl"
)

func next(t *testing.T, ch <-chan torctl.Event) torctl.Event {
	t.Helper()
	select {
	case e, open := <-ch:
		if !open {
			t.Fatal("closed")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	panic("unreachable")
}

func TestEventsReachTheirSubscribers(t *testing.T) {
	f := newFake(t, true, ok)
	c := dial(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	streams, err := c.Events(ctx, "STREAM", "CONF_CHANGED")
	if err != nil {
		t.Fatal(err)
	}
	circs, err := c.Events(t.Context(), "CIRC")
	if err != nil || f.last() != "SETEVENTS CIRC CONF_CHANGED STREAM" {
		t.Fatal(f.last(), err)
	}
	f.say("650 STREAM \"\r\n650 STREAM 7 NEW 0 SOURCE_ADDR=6.6.6.6:6 SOURCE_ADDR=10.66.0.2:4000 PURPOSE=USER\r\n650-CONF_CHANGED\r\n650-A=b\r\n650 OK\r\n650 CIRC 5 CLOSED REASON=FINISHED\r\n")
	s, good := next(t, streams).Stream()
	if !good || s.Target != "SOURCE_ADDR=6.6.6.6:6" || s.Source != netip.MustParseAddrPort("10.66.0.2:4000") || s.Purpose != "USER" {
		t.Errorf("%+v", s)
	}
	if e := next(t, streams); e.Code != "CONF_CHANGED" || len(e.Lines) != 1 || e.Lines[0] != "A=b" {
		t.Errorf("%+v", e)
	}
	if k, good := next(t, circs).Circuit(); !good || k.ID != "5" || k.Fields["REASON"] != "FINISHED" {
		t.Errorf("%+v", k)
	}
	cancel()
	for range streams { // closed by the end of ctx
	}
	f.say("250 OK\r\n") // nobody asked
	<-c.Done()
	for range circs { // closed by the break
	}
}

func TestASlowReaderHearsWhatItLost(t *testing.T) {
	f := newFake(t, false, ok)
	c := dial(t, f)
	ch, err := c.Events(t.Context(), "BW")
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Events(t.Context(), "NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	f.say(strings.Repeat("650 BW 1 2\r\n", 16384+10) + "650 NOTICE x\r\n")
	next(t, other)
	if _, err := c.Events(t.Context(), "CIRC"); err != nil { // still alive
		t.Fatal(err)
	}
	for range 16384 {
		next(t, ch)
	}
	f.say("650 BW 3 4\r\n")
	if e := next(t, ch); e.Lost != 10 || e.Args[0] != "3" {
		t.Errorf("%+v", e)
	}
}

func TestClockSkew(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		"STATUS_GENERAL WARN CLOCK_SKEW SKEW=-3600 SOURCE=OR:1.2.3.4:9001":    -time.Hour,
		"STATUS_GENERAL NOTICE CLOCK_SKEW SKEW=120 SOURCE=DIRSERV:1.2.3.4:80": 2 * time.Minute,
		"STATUS_GENERAL WARN CLOCK_SKEW MIN_SKEW=-90 SOURCE=CONSENSUS":        -90 * time.Second,
		"STATUS_GENERAL WARN CLOCK_SKEW SOURCE=CONSENSUS":                     0,
		"STATUS_GENERAL WARN CLOCK_SKEW SKEW=9223372036854775807":             0,
		"STATUS_GENERAL NOTICE CLOCK_JUMPED TIME=100 SKEW=5":                  0,
		"STATUS_CLIENT WARN BOOTSTRAP PROGRESS=5 REASON=CLOCK_SKEW SKEW=5":    0,
		"NOTICE STATUS_GENERAL WARN CLOCK_SKEW SKEW=5":                        0,
	} {
		e, err := torctl.ParseEvent(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, found := e.ClockSkew(); got != want || found != (want != 0) {
			t.Errorf("%s: %v, %v", raw, got, found)
		}
	}
}

func FuzzEvent(f *testing.F) {
	for _, s := range []string{"STREAM 1 NEW 0 a:80 SOURCE_ADDR=1.2.3.4:5 PURPOSE=USER", `STATUS_CLIENT NOTICE BOOTSTRAP SUMMARY="a \"b\" \101"`,
		"CIRC 1 BUILT $A~b,$C=d BUILD_FLAGS=X,Y", "NS\nr a\ns b", `A "`, `A B="\`, `A "\7"x`, "A =", "A  "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := torctl.ParseEvent(s)
		if err != nil {
			return
		}
		if e.Raw != s || !strings.HasPrefix(s, e.Code) {
			t.Errorf("%+v", e)
		}
		e.Stream()
		e.Circuit()
		e.ClockSkew()
	})
}

func TestASourceIsReadAsTorWritesIt(t *testing.T) {
	for text, want := range map[string]string{
		"10.66.0.2:4000": "10.66.0.2:4000", "fd00::2:40614": "[fd00::2]:40614", "[fd00::2]:40614": "[fd00::2]:40614",
		"(Tor_internal):1234": "invalid AddrPort", "": "invalid AddrPort", "10.66.0.2:70000": "invalid AddrPort", "unix:/x:0": "invalid AddrPort",
	} {
		e, err := torctl.ParseEvent("STREAM 7 NEW 0 a:80 SOURCE_ADDR=" + text + " PURPOSE=USER")
		if err != nil {
			t.Fatal(err)
		}
		if s, _ := e.Stream(); s.Source.String() != want {
			t.Errorf("%q is read as %s", text, s.Source)
		}
	}
}
