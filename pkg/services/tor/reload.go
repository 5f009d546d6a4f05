package tor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"vpnd/pkg/durable"
	"vpnd/pkg/torctl"
)

// reload gives tor a torrc that differs from the one that it runs, and makes
// sure that it was taken. An error is one of talking to tor.
func (k *keeper) reload(ctx context.Context, c *torctl.Client, gws []netip.Addr) error {
	isolation := k.settings.Load().Isolation
	text := torrc(k.cfg, k.paths, gws, isolation, k.bridges.TorrcLines())
	if len(gws) == 0 || hash(text) == k.proc.Torrc {
		return nil
	}
	if hash(text) == k.refused.torrc && time.Now().Before(k.refused.until) {
		return nil
	}
	// Until tor took one, nobody knows what it runs: after a refusal even the
	// former text has to be loaded, since the listeners may be closed.
	if k.proc.Torrc != "" {
		k.proc.Torrc = ""
		if err := durable.WriteJSON(k.paths.pid(), k.proc); err != nil {
			k.refuse(text, err.Error())
			return nil
		}
	}
	if err := durable.Write(k.paths.torrc(), []byte(text)); err != nil {
		k.refuse(text, err.Error())
		return nil
	}
	if isolation != k.proc.Isolation {
		// An open listener keeps the isolation that it was opened with.
		if err := c.SetConf(ctx, [2]string{"TransPort", "0"}, [2]string{"DNSPort", "0"}); err != nil {
			return err
		}
	}
	if err := c.Signal(ctx, "RELOAD"); err != nil {
		return err
	}
	if err := taken(ctx, c, markOf(text)); err != nil {
		if c.Err() != nil || ctx.Err() != nil {
			return err
		}
		k.refuse(text, first(lastWords(k.paths), err.Error()))
		return nil
	}
	k.refused.torrc = ""
	k.observe(func(o *observation) { o.refused = "" })
	k.proc.Torrc, k.proc.Isolation, k.proc.Gateways = hash(text), isolation, gws
	if err := durable.WriteJSON(k.paths.pid(), k.proc); err != nil {
		k.log.Warn("tor.pid_not_saved", "err", err) // whoever adopts this tor loads the torrc again
	}
	return nil
}

// refuse notes that tor does not run the torrc; it is tried again some time later.
func (k *keeper) refuse(text, why string) {
	k.refused.torrc, k.refused.until = hash(text), time.Now().Add(refusedFor)
	k.log.Error("tor.torrc_refused", "why", why)
	k.observe(func(o *observation) { o.refused = why })
}

// taken waits until tor runs the torrc with the mark: RELOAD is acknowledged
// whether or not the file is any good.
func taken(ctx context.Context, c *torctl.Client, mark string) error {
	for range 20 {
		v, err := c.GetConf(ctx, "Nickname")
		if err != nil {
			return err
		}
		if slices.Equal(v, []string{mark}) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("tor keeps its former configuration")
}
