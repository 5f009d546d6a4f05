package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func newStatus(f *factory) *cobra.Command {
	watch := false
	c := &cobra.Command{
		Use:   "status",
		Short: "Show who is signed in and how the tunnel is",
		Args:  cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error {
			if watch {
				return watchStatus(ctx, f)
			}
			r, _, err := readReport(ctx, f)
			if err != nil {
				return err
			}
			return f.printReport(r)
		}),
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show every change; with -o json one object a line")
	return c
}

// report is what status prints.
type report struct {
	SignedIn *account        `json:"signed_in"` // null: nobody
	Tunnel   agentapi.Status `json:"tunnel"`
}

// readReport asks the agent, or the journal when there is none. conn is nil then.
func readReport(ctx context.Context, f *factory) (report, *rpc.Conn, error) {
	var r report
	store, err := f.store()
	if err != nil {
		return r, nil, err
	}
	p, err := store.Load()
	if err != nil {
		return r, nil, err
	}
	if p.SignedIn() {
		r.SignedIn = new(account)
		*r.SignedIn = accountOf(p)
	}
	conn, err := findAgent(ctx)
	if err != nil {
		return r, nil, err
	}
	if conn != nil {
		st, err := agentapi.GetStatus.Call(ctx, conn, &agentapi.StatusRequest{Check: true})
		if err == nil {
			r.Tunnel = *st
			return r, conn, nil
		}
		if !errors.Is(err, fault.Unavailable) { // it is ending
			return r, nil, err
		}
	}
	r.Tunnel, err = restingStatus(ctx)
	if err != nil {
		return r, nil, err
	}
	r.Tunnel.Token = restingToken(p, time.Now())
	r.Tunnel.Heartbeat.State = "none"
	if p.Server.Host != "" {
		r.Tunnel.Server = gate.Address{Host: p.Server.Host, Port: p.Server.Port}.HostPort()
	}
	return r, nil, nil
}

func restingToken(p *profile.Profile, now time.Time) agentapi.Token {
	if !p.SignedIn() {
		return agentapi.Token{State: "none"}
	}
	t := agentapi.Token{State: "valid", AccessExpires: &p.Tokens.AccessExpires, RefreshExpires: &p.Tokens.RefreshExpires}
	switch {
	case now.After(p.Tokens.RefreshExpires):
		t.State = "refused"
	case p.Tokens.RenewalSent:
		t.State = "uncertain"
	case now.After(p.Tokens.AccessExpires):
		t.State = "expired"
	}
	return t
}

// watchStatus follows the agent, and waits for one where there is none.
func watchStatus(ctx context.Context, f *factory) error {
	last := ""
	show := func(r report) error {
		if f.json() {
			return json.NewEncoder(f.out).Encode(r)
		}
		if last != "" {
			fmt.Fprintln(f.out)
		}
		last = string(r.Tunnel.State)
		return f.printReport(r)
	}
	for ctx.Err() == nil {
		r, conn, err := readReport(ctx, f)
		switch {
		case ctx.Err() != nil:
			return nil // watching has no other end
		case err != nil:
			return err
		}
		if conn == nil {
			if last != string(r.Tunnel.State) || f.json() && last == "" {
				if err := show(r); err != nil {
					return err
				}
				last = string(r.Tunnel.State)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		_ = agentapi.WatchStatus.Follow(ctx, conn, nil, func(st agentapi.Status) error { // its end is the agent's
			r.Tunnel = st
			return show(r)
		})
	}
	return nil
}

func (f *factory) printReport(r report) error {
	t := r.Tunnel
	now := time.Now()
	return f.print(r, func(row func(string, string, ...any)) {
		if r.SignedIn == nil {
			row("Signed in", "no (vpn login URL)")
		} else {
			row("Signed in", "%s at %s", r.SignedIn.User.Username, r.SignedIn.Server)
			row("Device", "%s (%s)", r.SignedIn.DeviceName, r.SignedIn.DeviceID)
		}
		state := string(t.State)
		if t.State == agentapi.Closed && t.Reason != "" {
			state += " (" + t.Reason + ")"
		}
		if !t.Since.IsZero() {
			state += ", since " + t.Since.Local().Format("15:04:05") + " (" + age(now.Sub(t.Since)) + ")"
		}
		row("Tunnel", "%s", state)
		if t.Message != "" {
			row("", "%s", t.Message)
		}
		if t.State == agentapi.Down || t.State == agentapi.Crashed {
			return
		}
		state, why := describeLane(t.LaneState)
		row("Lane", "%s, interface %s%s", t.Lane, t.Interface, state)
		rowIf(row, "", why)
		rowIf(row, "Exit", describeExit(t.LaneState))
		if len(t.Addresses) > 0 {
			row("Addresses", "%s", joinAddresses(t.Addresses))
		}
		if t.Endpoint != "" {
			row("Server", "%s", t.Endpoint)
		}
		if t.LastHandshake != nil {
			row("Handshake", "%s ago", age(now.Sub(*t.LastHandshake)))
		} else {
			row("Handshake", "none yet")
		}
		traffic := size(t.RxBytes) + " received, " + size(t.TxBytes) + " sent"
		if !t.Began.IsZero() {
			traffic += " in " + age(now.Sub(t.Began))
		}
		row("Traffic", "%s", traffic)
		row("Heartbeat", "%s", describeBeat(t.Heartbeat, now))
		row("Sign-in", "%s", describeToken(t.Token, now))
	})
}

// rowIf is a row where there is something to say.
func rowIf(row func(string, string, ...any), name, value string) {
	if value != "" {
		row(name, "%s", value)
	}
}

func describeBeat(b agentapi.Heartbeat, now time.Time) string {
	switch {
	case b.State == "ok" && b.LastOK != nil:
		return fmt.Sprintf("ok %s ago, %s the tunnel", age(now.Sub(*b.LastOK)), wayInWords(b.Way))
	case b.State == "failing":
		return "failing: " + b.Error
	}
	return "none yet"
}

// describeLane gives what goes behind the lane's name and, for a line of its own,
// the reason.
func describeLane(l *client.LaneState) (state, why string) {
	if l == nil {
		return "", ""
	}
	if l.State == "unknown" {
		return ", state unknown", l.Reason
	}
	return ", " + l.State, l.Reason
}

// describeExit says where the lane leaves Tor; nothing where it does not, and
// where that is nobody's choice and not known.
func describeExit(l *client.LaneState) string {
	if l == nil || l.State != "up" {
		return ""
	}
	s := l.ExitCountry
	if len(l.Exits) > 0 {
		if s == "" {
			s = "none yet"
		}
		s += " (chosen: " + strings.Join(l.Exits, ", ")
		if l.Strict {
			s += "; nothing else will do"
		}
		s += ")"
	}
	return s
}

func wayInWords(way string) string {
	if way == string(gate.Inside) {
		return "through"
	}
	return "around"
}

func describeToken(t agentapi.Token, now time.Time) string {
	switch t.State {
	case "valid":
		return "valid for " + age(t.AccessExpires.Sub(now)) + ", renewed by itself"
	case "expired":
		return "due to be renewed"
	case "uncertain":
		return "a renewal was not answered; the tunnel goes on without it (vpn login renews it)"
	case "refused":
		return "no longer accepted; sign in again: vpn login"
	}
	return "none"
}

func joinAddresses(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.Addr().String()
	}
	return strings.Join(s, ", ")
}

func age(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
