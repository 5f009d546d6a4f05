package torctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

// Bootstrap is how far tor has come. It stays at 100 when the network is taken
// away again; ask Health for that.
type Bootstrap struct {
	Percent               int
	Tag, Summary, Warning string // Warning: the last problem, or empty
}

// Health is what tells a tor that works from one that merely runs. The byte
// counts are since its start.
type Health struct {
	EnoughDirInfo, CircuitEstablished, NetworkLive bool
	RxBytes, TxBytes                               int64
}

// getInfo asks for several values at once; they come back in order.
func (c *Client) getInfo(ctx context.Context, keys ...string) ([]string, error) {
	var values []string
	err := c.do(ctx, "GETINFO "+strings.Join(keys, " "), func(r *control.Response) error {
		if len(r.Data) != len(keys) {
			return fmt.Errorf("GETINFO: %d values for %d keys", len(r.Data), len(keys))
		}
		for i, key := range keys {
			v, ok := strings.CutPrefix(r.Data[i], key+"=")
			if !ok {
				return fmt.Errorf("GETINFO %s: another value came", key)
			}
			values = append(values, strings.TrimSpace(v))
		}
		return nil
	})
	return values, err
}

func garbled(what string) error {
	return fault.New(fault.Unavailable, "tor gave a %s that cannot be read", what)
}

// Bootstrap asks how far tor has come.
func (c *Client) Bootstrap(ctx context.Context) (Bootstrap, error) {
	v, err := c.getInfo(ctx, "status/bootstrap-phase")
	if err != nil {
		return Bootstrap{}, err
	}
	_, f, err := parseWords(v[0], 0)
	if err != nil {
		return Bootstrap{}, garbled("bootstrap phase")
	}
	n, err := strconv.Atoi(f["PROGRESS"])
	if err != nil || n < 0 || n > 100 {
		return Bootstrap{}, garbled("bootstrap phase")
	}
	return Bootstrap{n, f["TAG"], f["SUMMARY"], f["WARNING"]}, nil
}

// Health asks whether tor can carry traffic and how much it has carried.
func (c *Client) Health(ctx context.Context) (Health, error) {
	v, err := c.getInfo(ctx, "status/enough-dir-info", "status/circuit-established", "network-liveness", "traffic/read", "traffic/written")
	if err != nil {
		return Health{}, err
	}
	rx, err1 := strconv.ParseInt(v[3], 10, 64)
	tx, err2 := strconv.ParseInt(v[4], 10, 64)
	if errors.Join(err1, err2) != nil {
		return Health{}, garbled("byte count")
	}
	return Health{v[0] == "1", v[1] == "1", v[2] == "up", rx, tx}, nil
}

// Version asks for tor's version, such as "0.4.9.11".
func (c *Client) Version(ctx context.Context) (string, error) {
	v, err := c.getInfo(ctx, "version")
	if err != nil {
		return "", err
	}
	return v[0], nil
}

// PID asks for tor's process id, as tor sees it.
func (c *Client) PID(ctx context.Context) (int, error) {
	v, err := c.getInfo(ctx, "process/pid")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(v[0])
	if err != nil || pid <= 0 {
		return 0, garbled("process id")
	}
	return pid, nil
}

// Country asks tor's GeoIP file for the country of addr, in lower case; empty
// when it knows none. Unavailable without a GeoIP file.
func (c *Client) Country(ctx context.Context, addr netip.Addr) (string, error) {
	if !addr.IsValid() || addr.Zone() != "" {
		return "", fault.InvalidField("addr", "not an address")
	}
	v, err := c.getInfo(ctx, "ip-to-country/"+addr.Unmap().String())
	if err != nil || v[0] == "??" {
		return "", err
	}
	if CheckCountry(v[0]) != nil {
		return "", garbled("country")
	}
	return strings.ToLower(v[0]), nil
}

// SetConf sets options, all or none; an empty value resets one to its default.
// A RELOAD signal undoes it.
func (c *Client) SetConf(ctx context.Context, pairs ...[2]string) error {
	var b strings.Builder
	b.WriteString("SETCONF")
	if len(pairs) == 0 {
		return fault.InvalidField("pairs", "name at least one option")
	}
	for _, p := range pairs {
		if !isKey(strings.ToUpper(p[0])) {
			return fault.InvalidField("pairs", "%q is no option", p[0])
		}
		b.WriteString(" " + p[0])
		if p[1] != "" {
			b.WriteString("=" + quote(p[1]))
		}
	}
	return c.do(ctx, b.String(), nil)
}

// Signal sends a signal by its control-port name: NEWNYM, RELOAD, SHUTDOWN...
func (c *Client) Signal(ctx context.Context, name string) error {
	if !isKey(name) {
		return fault.InvalidField("name", "%q is no signal", name)
	}
	return c.do(ctx, "SIGNAL "+name, nil)
}
