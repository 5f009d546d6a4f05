package tor

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

// socks stands for tor's SOCKS port: whatever is asked for leads to the target.
func socks(t *testing.T, path, target string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 300)
				// Method selection, then the request, which names its host by length (RFC 1928).
				if _, err := io.ReadFull(c, buf[:3]); err != nil {
					return
				}
				_, _ = c.Write([]byte{5, 0})
				if _, err := io.ReadFull(c, buf[:5]); err != nil || buf[3] != 3 {
					return
				}
				if _, err := io.ReadFull(c, buf[:int(buf[4])+2]); err != nil {
					return
				}
				to, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer to.Close()
				_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
				go func() { _, _ = io.Copy(to, c) }()
				_, _ = io.Copy(c, to)
			}()
		}
	}()
}

func TestTheCheckSaysWhatThePageSaw(t *testing.T) {
	t.Parallel()
	w := still(t)
	w.cfg.Tor.CheckURL = "http://check.example/ip"
	w.make()
	if _, err := w.s.check(t.Context()); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("without tor: %v", err)
	}
	w.start()
	w.up()
	if c, err := w.s.check(t.Context()); err != nil || c.OK || c.Message == "" || c.URL != w.cfg.Tor.CheckURL {
		t.Errorf("without a SOCKS port: %+v, %v", c, err)
	}
	status, body := http.StatusOK, ""
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	}))
	defer web.Close()
	socks(t, w.s.paths.socks(), strings.TrimPrefix(web.URL, "http://"))
	for _, c := range []struct {
		status     int
		body, want string
		seen       string
		ok         bool
	}{
		{200, `{"IP":"192.0.2.7"}`, "is not this host's", "192.0.2.7", true},
		{200, "127.0.0.1", "this host's own address", "127.0.0.1", false},
		{200, "hello", "holds no address", "", false},
		{200, strings.Repeat(" ", checkMax) + "192.0.2.7", "holds no address", "", false},
		{403, "192.0.2.7", "403", "", false},
	} {
		status, body = c.status, c.body
		got, err := w.s.check(t.Context())
		var seen netip.Addr
		if c.seen != "" {
			seen = netip.MustParseAddr(c.seen)
		}
		if err != nil || got.OK != c.ok || got.Seen != seen || !strings.Contains(got.Message, c.want) {
			t.Errorf("%.20q: %+v, %v", c.body, got, err)
		}
	}
}

// All relays of the public network may take longer to read than tor is given
// to answer a question.
func TestTheLaneComesUpBeforeAllRelaysAreRead(t *testing.T) {
	t.Parallel()
	w := still(t)
	o := well()
	o.Exits, o.Mute = []string{"de"}, "GETINFO ns/all"
	w.order(o)
	w.start()
	if st := w.up(); st.Restarts != 0 || st.Process != api.ProcessRunning {
		t.Errorf("the status is %+v", st)
	}
}
