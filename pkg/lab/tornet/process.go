//go:build linux

package tornet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vpnd/pkg/lab"
)

const (
	torrcName   = "torrc"
	outName     = "out"
	logName     = "notice.log"
	uploadsName = "uploads.log"

	// stopTimeout is what a tor gets to end by itself. One in a hundred hangs
	// after it has said that it exits.
	stopTimeout  = 3 * time.Second
	pollEvery    = 100 * time.Millisecond
	askTimeout   = 2 * time.Second
	probeTimeout = 5 * time.Second
	// maxConsensus is far more than this network's.
	maxConsensus = 1 << 20
)

// process is a tor that was started.
type process struct {
	name  string
	cmd   *lab.Cmd
	ended chan struct{} // closed when it was waited for
	err   error         // valid once ended is closed
}

// launch writes a tor's torrc, starts it and keeps it for Close.
func (n *Network) launch(name, torrc string) error {
	err := n.internet.Do(func() error {
		data := filepath.Join(dir, name)
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(data, torrcName), []byte(torrc), 0o600)
	})
	if err != nil {
		return err
	}
	p, err := n.spawn(name)
	if err != nil {
		return err
	}
	n.running[name] = p
	return nil
}

func (n *Network) spawn(name string) (*process, error) {
	data := filepath.Join(dir, name)
	var out *os.File
	err := n.internet.Do(func() (err error) {
		out, err = os.Create(filepath.Join(data, outName))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// Without the distribution's defaults, which are for its own service.
	cmd := n.internet.Command(n.tor, "--defaults-torrc", filepath.Join(dir, "none"), "-f", filepath.Join(data, torrcName))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal's interrupt reaches it
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tor %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and returns when it was waited for.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// said is the end of what a tor told, for errors.
func (n *Network) said(p *process) string {
	var all []string
	for _, name := range []string{outName, logName} {
		b, _ := n.readFile(p.name, name)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		all = append(all, lines[max(0, len(lines)-5):]...)
	}
	return strings.Join(all, "\n")
}

// poll waits until ok, until one of the processes ends, or until ctx does. An
// error quotes the one that ended, or else the first.
func (n *Network) poll(ctx context.Context, what string, procs []*process, ok func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ok() {
		for _, p := range procs {
			if !p.alive() {
				return fmt.Errorf("tor %s ended: %w\n%s", p.name, p.err, n.said(p))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w\n%s", what, ctx.Err(), n.said(procs[0]))
		case <-tick.C:
		}
	}
	return nil
}

// waitConsensus waits until the authority serves a consensus in which every
// relay has its flags.
func (n *Network) waitConsensus(ctx context.Context, relays []relay) error {
	client := n.internet.HTTPClient()
	defer client.CloseIdleConnections()
	var procs []*process
	for _, r := range relays {
		procs = append(procs, n.running[r.nickname])
	}
	return n.poll(ctx, "wait for the consensus", procs, func() bool {
		flags := relayFlags(fetchConsensus(ctx, client))
		for _, r := range relays {
			for _, f := range r.flags {
				if !slices.Contains(flags[r.nickname], f) {
					return false
				}
			}
		}
		return true
	})
}

// fetchConsensus is empty while there is none.
func fetchConsensus(ctx context.Context, client *http.Client) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	v4, _ := address(authorityHost)
	page := fmt.Sprintf("http://%s/tor/status-vote/current/consensus-microdesc", netip.AddrPortFrom(v4, dirPort))
	return fetch(ctx, client, page)
}

// fetch is empty when there is no such page.
func fetch(ctx context.Context, client *http.Client, page string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return ""
	}
	// Asked for what the client asks for by itself, tor answers with deflate.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxConsensus))
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// relayFlags reads a consensus: a line "r NICKNAME …" begins a relay, its line
// "s FLAG…" has the flags.
func relayFlags(consensus string) map[string][]string {
	flags := map[string][]string{}
	nickname := ""
	for line := range strings.Lines(consensus) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "r":
			nickname = f[1]
		case len(f) > 1 && f[0] == "s":
			flags[nickname] = f[1:]
		}
	}
	return flags
}

// waitExits waits until a page was fetched through each exit.
func (n *Network) waitExits(ctx context.Context) error {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		DialContext: n.internet.DialContext, DisableKeepAlives: true,
		Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: probeAddr}),
	}}
	for _, e := range n.exits {
		procs := []*process{n.running[onionName], n.running[e.Nickname]}
		err := n.poll(ctx, "wait for "+e.Nickname, procs, func() bool {
			return strings.TrimSpace(fetch(ctx, client, "http://"+probeName(e)+"/ip")) == e.V4.String()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// waitOnion waits until the service's descriptors are where clients look: one
// for this period of time and one for the next.
func (n *Network) waitOnion(ctx context.Context) error {
	err := n.poll(ctx, "wait for the onion service", []*process{n.running[onionName]}, func() bool {
		b, _ := n.readFile(onionName, uploadsName)
		return strings.Count(string(b), "Uploading hidden service descriptor: finished with status 200") >= 2
	})
	if err != nil {
		return err
	}
	b, err := n.readFile(onionName, "service", "hostname")
	n.onion = strings.TrimSpace(string(b))
	return err
}

func (n *Network) waitListening(ctx context.Context, p *process, addr netip.AddrPort) error {
	return n.poll(ctx, "wait for "+p.name, []*process{p}, func() bool {
		conn, err := n.internet.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}
