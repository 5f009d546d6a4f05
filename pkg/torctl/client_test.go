package torctl_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

const fp = "0123456789ABCDEF0123456789ABCDEF01234567"

var replies = map[string]string{
	"GETINFO status/bootstrap-phase": "250-status/bootstrap-phase=WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY=\"Handshake with a relay done\" WARNING=\"No \\\"route\\\"\"\r\n250 OK\r\n",
	"GETINFO status/enough-dir-info status/circuit-established network-liveness traffic/read traffic/written": "250-status/enough-dir-info=1\r\n250-status/circuit-established=0\r\n250-network-liveness=up\r\n250-traffic/read=10\r\n250-traffic/written=20\r\n250 OK\r\n",
	"GETINFO circuit-status":                            "250+circuit-status=\r\n5 BUILT $" + fp + "~nick,$" + fp + " BUILD_FLAGS=IS_INTERNAL,NEED_CAPACITY PURPOSE=GENERAL\r\n6 LAUNCHED PURPOSE=GENERAL\r\n.\r\n250 OK\r\n",
	"GETINFO stream-status":                             "250-stream-status=9 SUCCEEDED 5 SOURCE_ADDR=6.6.6.6:1\r\n250 OK\r\n",
	"GETINFO ip-to-country/1.2.3.4":                     "250-ip-to-country/1.2.3.4=DE\r\n250 OK\r\n",
	"GETINFO process/pid":                               "250-process/pid=42\r\n250 OK\r\n",
	"GETINFO version":                                   "650 NOTICE early\r\n650-CONF_CHANGED\r\n650-A=b\r\n650 OK\r\n250-version=0.4.9.11\r\n250 OK\r\n",
	"SETCIRCUITPURPOSE 13 purpose=general":              "250 OK\r\n",
	"EXTENDCIRCUIT 0":                                   "250 EXTENDED 12\r\n",
	"EXTENDCIRCUIT 0 $" + fp + ",r2 purpose=controller": "250 EXTENDED 13\r\n",
	"CLOSECIRCUIT 99":                                   "552 Unknown circuit \"99\"\r\n",
	"ATTACHSTREAM 7 0":                                  "555 Connection is not managed by controller.\r\n",
	"SETEVENTS NOPE":                                    "552 Unrecognized event \"NOPE\"\r\n",
}

func script(line string) string {
	if r := replies[line]; r != "" {
		return r
	}
	return "250 OK\r\n"
}

func TestEveryCommandReadsItsReply(t *testing.T) {
	f := newFake(t, true, script)
	c := dial(t, f)
	ctx := t.Context()
	check := func(name string, got any, err error, want any) {
		t.Helper()
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	b, err := c.Bootstrap(ctx)
	check("bootstrap", b, err, torctl.Bootstrap{Percent: 14, Tag: "handshake", Summary: "Handshake with a relay done", Warning: `No "route"`})
	h, err := c.Health(ctx)
	check("health", h, err, torctl.Health{EnoughDirInfo: true, NetworkLive: true, RxBytes: 10, TxBytes: 20})
	cs, err := c.Circuits(ctx)
	check("circuits", cs[0].Path, err, []torctl.Hop{{Fingerprint: fp, Nickname: "nick"}, {Fingerprint: fp}})
	check("flags", cs[0].BuildFlags, err, []string{"IS_INTERNAL", "NEED_CAPACITY"})
	check("second", cs[1].ID+cs[1].Status+cs[1].Purpose, err, "6LAUNCHEDGENERAL")
	// A target that looks like a field is a target.
	ss, err := c.Streams(ctx)
	check("streams", ss, err, []torctl.Stream{{ID: "9", Status: "SUCCEEDED", Circuit: "5", Target: "SOURCE_ADDR=6.6.6.6:1", Fields: map[string]string{}}})
	cc, err := c.Country(ctx, netip.MustParseAddr("1.2.3.4"))
	check("country", cc, err, "de")
	pid, err := c.PID(ctx)
	check("pid", pid, err, 42)
	v, err := c.Version(ctx)
	check("version behind events", v, err, "0.4.9.11")
	id, err := c.ExtendCircuit(ctx, nil)
	check("extend", id, err, "12")
	id, err = c.ExtendCircuit(ctx, []string{fp, "r2"})
	check("extend by path", id, err, "13")
	check("open", nil, c.OpenCircuit(ctx, "13"), nil)
	err = c.SetConf(ctx, [2]string{"ContactInfo", `100%s "x" \y`}, [2]string{"ExitNodes", ""})
	check("setconf", f.last(), err, `SETCONF ContactInfo="100%s \"x\" \\y" ExitNodes`)
	check("close stream", nil, c.CloseStream(ctx, "3"), nil)
	if err := c.CloseCircuit(ctx, "99"); !errors.Is(err, fault.NotFound) {
		t.Errorf("unknown circuit: %v", err)
	}
	if err := c.AttachStream(ctx, "7", "0"); !errors.Is(err, fault.Conflict) {
		t.Errorf("unmanaged stream: %v", err)
	}
	if _, err := c.Events(ctx, "NOPE"); !errors.Is(err, fault.NotFound) || c.Err() != nil {
		t.Errorf("unknown event: %v, %v", err, c.Err())
	}
}

// An argument must never become a second command.
func TestArgumentsCannotCarryCommands(t *testing.T) {
	f := newFake(t, false, ok)
	c := dial(t, f)
	ctx := t.Context()
	for _, evil := range []string{"1\r\nSIGNAL HALT", "1\nSIGNAL HALT", "1\x00", "1 2", "", "%s%n\n"} {
		_, xerr := c.ExtendCircuit(ctx, []string{evil})
		_, eerr := c.Events(ctx, evil)
		errs := []error{c.CloseCircuit(ctx, evil), c.CloseStream(ctx, evil), c.AttachStream(ctx, "1", evil),
			c.AttachStream(ctx, evil, "0"), c.Signal(ctx, evil), c.SetConf(ctx, [2]string{evil, "v"}), xerr, eerr}
		if strings.ContainsAny(evil, "\r\n\x00") {
			errs = append(errs, c.SetConf(ctx, [2]string{"Nickname", evil}))
		}
		for i, err := range errs {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%q, call %d: %v", evil, i, err)
			}
		}
	}
	if f.last() != "" || c.Err() != nil {
		t.Errorf("sent %q, %v", f.last(), c.Err())
	}
}

func TestBadRepliesBreakTheClient(t *testing.T) {
	huge := strings.Repeat("250-"+strings.Repeat("a", 900<<10)+"\r\n", 80)
	for name, reply := range map[string]string{
		"hangup": "hangup", "silence": "", "stump": "250-version=1", "stump of an end": "250-version=1\r\n250 Ohangup", "no code": "hello\r\n", "short": "25\r\n",
		"code changes": "250-version=1\r\n251 OK\r\n", "other key": "250-process/pid=1\r\n250 OK\r\n", "no value": "250 OK\r\n",
		"endless data": "250+version=\r\nx\r\n", "bad separator": "250?x\r\n",
		"long line": "250-version=" + strings.Repeat("a", 2<<20) + "\r\n250 OK\r\n", "huge": huge + "250 OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, newFake(t, false, func(string) string { return reply }))
			ctx := t.Context()
			if name != "huge" {
				ctx = soon(t)
			}
			if v, err := c.Version(ctx); err == nil {
				t.Fatalf("got %.40q", v)
			}
			<-c.Done()
			if err := c.Signal(t.Context(), "NEWNYM"); !errors.Is(err, fault.Unavailable) || err != c.Err() {
				t.Errorf("after: %v", err)
			}
		})
	}
}

// A reply that comes twice must not answer the next command.
func TestALateReplyAnswersNobody(t *testing.T) {
	c := dial(t, newFake(t, false, func(string) string { return "250-version=1\r\n250 OK\r\n250-version=2\r\n250 OK\r\n" }))
	if v, err := c.Version(t.Context()); v != "1" || err != nil {
		t.Fatal(v, err)
	}
	if v, err := c.Version(t.Context()); err == nil {
		t.Errorf("got %q", v)
	}
}

func TestSlowTorTimesOutWithoutADeadline(t *testing.T) {
	c := dial(t, newFake(t, false, func(string) string { return "" }))
	start := time.Now()
	if err := c.Signal(t.Context(), "NEWNYM"); !errors.Is(err, fault.Timeout) || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	c = dial(t, newFake(t, false, func(string) string { return "" }))
	if _, err := c.Events(soon(t), "CIRC"); !errors.Is(err, fault.Timeout) || c.Err() == nil {
		t.Errorf("events: %v", err)
	}
}

func TestDialRefusesBadHellos(t *testing.T) {
	for _, hello := range []string{"hangup", "250 OK\r\n", "250-AUTH METHODS=COOKIE\r\n250 OK\r\n", "x\r\n",
		"250-AUTH METHODS=SAFECOOKIE COOKIEFILE=\"/dev/zero\"\r\n250 OK\r\n", "250-AUTH METHODS=HASHEDPASSWORD\r\n250 OK\r\n",
		"250-AUTH METHODS=SAFECOOKIE COOKIEFILE=\"" + strings.Repeat("a", 1<<20) + "\"\r\n250 OK\r\n", " "} {
		f := newFake(t, false, ok)
		f.hello = hello
		if _, err := torctl.Dial(soon(t), f.path); err == nil {
			t.Errorf("%.40q: dialed", hello)
		}
	}
	if _, err := torctl.Dial(t.Context(), "/nonexistent"); !errors.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

func TestConcurrentCallsGetTheirOwnReplies(t *testing.T) {
	c := dial(t, newFake(t, true, func(line string) string {
		addr := strings.TrimPrefix(line, "GETINFO ip-to-country/")
		return fmt.Sprintf("250-ip-to-country/%s=%c%c\r\n250 OK\r\n", addr, 'a'+addr[len(addr)-1]-'0', 'x')
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				got, err := c.Country(t.Context(), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
				if want := string([]byte{'a' + byte(i), 'x'}); got != want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}
