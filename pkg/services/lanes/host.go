package lanes

import (
	"context"

	"vpnd/pkg/api/events"
	"vpnd/pkg/link"
)

// host is what is known of the kernel settings that lanes need outside their
// interfaces. keepWall alone has one.
type host struct {
	forwarding bool   // it was switched on
	unlimited  bool   // the limit of refusals was lifted once
	said       string // the last error about forwarding
	warned     string // and about the limit
}

// prepare sets the host's kernel settings. The rules are in place.
func (l *Lanes) prepare(ctx context.Context, h *host) {
	if !h.forwarding {
		err := l.forward(ctx)
		if h.forwarding = err == nil; !h.forwarding && err.Error() != h.said {
			h.said = err.Error() // once
			l.log.Error("forwarding.failed", "err", err)
			l.publish(events.Event{Type: "lane.failed", Message: "forwarding could not be enabled: " + h.said})
		}
	}
	l.unlimit(h)
}

// forward lets the host forward packets; without it no lane carries anything.
func (l *Lanes) forward(ctx context.Context) error {
	links, err := link.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	changed, err := links.EnableForwarding(ctx)
	if len(changed) > 0 {
		l.log.Info("forwarding.enabled", "changed", changed)
	}
	return err
}

// unlimit has every refusal told to its device, and keeps it so: QUIC falls back
// to TCP at once when its first datagram is refused, and only then. Lanes work
// without it, just slower for their users, so an error is no failure.
func (l *Lanes) unlimit(h *host) {
	changed, err := link.UnlimitRefusals()
	if len(changed) > 0 {
		if !h.unlimited {
			l.log.Info("refusals.unlimited", "changed", changed)
		}
		for _, name := range changed {
			if h.unlimited {
				l.repaired(name + " limited refusals again")
			}
		}
	}
	switch {
	case err == nil:
		h.unlimited, h.warned = true, ""
	case err.Error() != h.warned:
		h.warned = err.Error()
		l.log.Warn("refusals.limited", "err", err)
	}
}
