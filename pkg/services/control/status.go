//go:build linux

package control

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"vpnd/pkg/api/canary"
	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/build"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// askTime bounds each question of a status: one service that hangs must not
// hide the others.
const askTime = time.Second

// answers are what the services said; nil where they did not.
type answers struct {
	services *rpc.List[supervisor.Service]
	lanes    *rpc.List[lanes.Lane]
	sessions *sessions.Overview
	users    *rpc.List[users.User]
	tls      *keys.Certificate
	pools    *ipam.StatusReply
	tor      *tor.Status
	leaks    *rpc.List[canary.Result]
	logs     *logs.Status
	silent   []silence // in the order of the services
}

// silence is what a service did not say. That of tor and canary is no problem of
// its own: an operator may do without them, and the list of services and lane
// tor's state tell the rest. So it is with logs, unless it should answer.
type silence struct {
	service string
	err     error
}

func (c *control) status(ctx context.Context, _ *struct{}) (*api.Status, error) {
	a, now := c.ask(ctx), time.Now().UTC()
	s := &api.Status{
		Version: build.Get().Version, Time: now, Started: c.started, Endpoint: c.endpoint(),
		Services: []supervisor.Service{}, Lanes: []lanes.Lane{}, Sessions: a.sessions, Problems: c.problems(a, now),
	}
	if a.services != nil {
		s.Services = a.services.Items
	}
	if a.lanes != nil {
		s.Lanes = a.lanes.Items
		for i, l := range s.Lanes {
			if l.Name == lanes.Tor && l.State != "up" && l.Reason == "" && a.tor != nil {
				s.Lanes[i].Reason = a.tor.Reason
			}
		}
	}
	if a.users != nil {
		s.Users = a.users.Total
	}
	if a.tls != nil {
		s.Pin = a.tls.Pin
	}
	s.Healthy = len(s.Problems) == 0
	return s, nil
}

func (c *control) ask(ctx context.Context) *answers {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	a := &answers{}
	questions := []struct {
		service string
		ask     func() error
	}{
		{"supervisor", question(ctx, c, "supervisor", supervisor.List, &a.services)},
		{"lanes", question(ctx, c, "lanes", lanes.List, &a.lanes)},
		{"sessions", question(ctx, c, "sessions", sessions.GetOverview, &a.sessions)},
		{"users", func() (err error) {
			a.users, err = users.ListUsers.Call(ctx, c.conns["users"], &users.ListRequest{Limit: 1})
			return err
		}},
		{"keys", question(ctx, c, "keys", keys.TLSCertificate, &a.tls)},
		{"ipam", question(ctx, c, "ipam", ipam.Status, &a.pools)},
		{"tor", question(ctx, c, "tor", tor.GetStatus, &a.tor)},
		{"canary", question(ctx, c, "canary", canary.Last, &a.leaks)},
		{"logs", question(ctx, c, "logs", logs.GetStatus, &a.logs)},
	}
	errs := make([]error, len(questions))
	var wg sync.WaitGroup
	for i, q := range questions {
		wg.Go(func() { errs[i] = q.ask() })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			a.silent = append(a.silent, silence{questions[i].service, err})
		}
	}
	return a
}

func question[Resp any](ctx context.Context, c *control, service string, op rpc.Op[struct{}, Resp], answer **Resp) func() error {
	return func() (err error) {
		*answer, err = op.Call(ctx, c.conns[service], nil)
		return err
	}
}

// problems lists what wants attention, the cause before its consequences.
func (c *control) problems(a *answers, now time.Time) []api.Problem {
	out := []api.Problem{}
	add := func(hint, what string, args ...any) {
		out = append(out, api.Problem{What: fmt.Sprintf(what, args...), Hint: hint})
	}
	named := map[string]bool{} // services whose trouble is told already
	if a.services != nil {
		for _, s := range a.services.Items {
			why := ""
			if s.Reason != "" {
				why = ": " + s.Reason
			}
			switch s.State {
			case "ready", "running", "disabled":
				continue
			case "stopped":
				if !s.Enabled {
					continue
				}
				add("vpnctl service start "+s.Name, "service %s is stopped%s", s.Name, why)
			default:
				add("vpnctl service get "+s.Name, "service %s %s%s", s.Name, trouble(s.State), why)
			}
			named[s.Name] = true
		}
	}
	for _, s := range a.silent {
		if named[s.service] || s.service == "tor" || s.service == "canary" || s.service == "logs" && !a.runs("logs") {
			continue
		}
		f := fault.From(s.err)
		hint := f.Hint
		switch {
		case s.service == "supervisor":
			hint = "vpnd may be stopping; look at its log"
		case hint == "":
			hint = "vpnctl service get " + s.service
		}
		add(hint, "service %s cannot be asked: %s", s.service, f.Message)
	}
	if a.lanes != nil {
		for _, l := range a.lanes.Items {
			if l.State == "up" || l.State == "blocked" && l.Name == lanes.Tor && a.torUnwanted() {
				continue
			}
			hint, why, state := "vpnctl service get lanes", "", l.State
			if l.Reason != "" {
				why = ": " + l.Reason
			}
			if l.Name == lanes.Tor && (state == "maintenance" || state == "blocked") {
				hint = "vpnctl tor status"
			}
			if state == "maintenance" {
				state = "in maintenance"
			}
			add(hint, "lane %s is %s%s", l.Name, state, why)
		}
	}
	for _, r := range a.newestLeaks() {
		if r.OK {
			continue
		}
		why := ""
		if r.Message != "" {
			why = ": " + r.Message
		}
		add("vpnctl leaktest list", "leak test of lane %s failed %s%s", r.Lane, ago(now.Sub(r.At)), why)
	}
	if a.sessions != nil && !a.sessions.Synced {
		add("this passes by itself in seconds; if not: vpnctl service get lanes", "the lanes do not hold all peers yet")
	}
	if a.pools != nil {
		for _, p := range a.pools.Pools {
			if p.Free == 0 {
				add("enlarge lanes."+p.Lane+"."+p.Family+" in the configuration", "the %s pool of lane %s is full: %d addresses", p.Family, p.Lane, p.Capacity)
			}
		}
	}
	if a.logs != nil {
		for _, p := range a.logs.Problems {
			add(p.Hint, "logs: %s", p.What)
		}
	}
	if err := c.trail.problem(); err != nil {
		add("look at the disk; entries of this time are shown as pending", "the audit trail is incomplete: %s", err)
	}
	return out
}

// torUnwanted tells whether an operator wants lane tor blocked: took it down, or
// runs no service that could open it. The lane's reason is note enough then.
func (a *answers) torUnwanted() bool {
	if a.tor != nil {
		return a.tor.Wish == tor.WishDown
	}
	return a.services != nil && slices.ContainsFunc(a.services.Items, func(s supervisor.Service) bool {
		return s.Name == "tor" && (s.State == "disabled" || s.State == "stopped" && !s.Enabled)
	})
}

// runs tells whether a service is up, as far as the supervisor knows.
func (a *answers) runs(service string) bool {
	return a.services != nil && slices.ContainsFunc(a.services.Items, func(s supervisor.Service) bool {
		return s.Name == service && (s.State == "ready" || s.State == "running")
	})
}

// newestLeaks gives each lane's last leak test: what failed before and not any
// more wants no attention.
func (a *answers) newestLeaks() []canary.Result {
	if a.leaks == nil {
		return nil
	}
	var newest []canary.Result
	for _, r := range a.leaks.Items { // the newest first
		if !slices.ContainsFunc(newest, func(o canary.Result) bool { return o.Lane == r.Lane }) {
			newest = append(newest, r)
		}
	}
	return newest
}

// ago is a time that has passed, in its largest unit.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// trouble says in words what a service that does not work does instead.
func trouble(state string) string {
	words := map[string]string{
		"starting": "is starting", "stopping": "is stopping", "unready": "is not ready",
		"unhealthy": "does not answer", "backoff": "died and will be started again", "failed": "died again and again",
	}
	if w, ok := words[state]; ok {
		return w
	}
	return "is " + state // a newer supervisor knows more states
}

// endpoint is the configured host, or the address that packets to the internet
// leave from. Connecting a UDP socket asks the routing table and sends nothing.
func (c *control) endpoint() string {
	if c.cfg.Server.Endpoint != "" {
		return c.cfg.Server.Endpoint
	}
	for _, to := range []string{"198.51.100.1:9", "[2001:db8::1]:9"} { // documentation addresses, RFC 5737 and 3849
		conn, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		host, _, err := net.SplitHostPort(conn.LocalAddr().String())
		_ = conn.Close()
		if err == nil {
			return host
		}
	}
	return ""
}
