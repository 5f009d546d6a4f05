package lanes

import (
	"context"

	"vpnd/pkg/api/id"
	"vpnd/pkg/wgdev"
)

func (l *lane) upsert(ctx context.Context, p ...wgdev.Peer) error {
	return l.use(ctx, func(d *wgdev.Device) error { return d.Upsert(ctx, p...) })
}

func (l *lane) remove(ctx context.Context, keys ...wgdev.Key) error {
	return l.use(ctx, func(d *wgdev.Device) error { return d.Remove(ctx, keys...) })
}

func (l *lane) peers(ctx context.Context) (out []wgdev.PeerState, err error) {
	err = l.use(ctx, func(d *wgdev.Device) error {
		out, err = d.Peers(ctx)
		return err
	})
	return out, err
}

// difference counts what is, or was, to be done.
type difference struct{ added, changed, removed int }

func (d difference) none() bool { return d == difference{} }

// plan is what has to be done to an interface.
type plan struct {
	extra   []wgdev.Key
	changed []wgdev.Peer
	missing []wgdev.Peer
}

func (p plan) difference() difference {
	return difference{added: len(p.missing), changed: len(p.changed), removed: len(p.extra)}
}

// compare finds out how the interface's peers differ from the wanted ones.
func (l *lane) compare(ctx context.Context, want map[id.Device]wanted, index int, book *wgdev.EndpointBook) (plan, error) {
	have, err := l.peers(ctx)
	if err != nil {
		return plan{}, err
	}
	book.Observe(have)
	missing := make(map[wgdev.Key]wgdev.Peer, len(want))
	for _, w := range want {
		missing[w.key] = w.peer(index)
	}
	if c, ok := l.canaryPeer(); ok {
		missing[c.PublicKey] = c
	}
	var p plan
	for _, h := range have {
		w, ok := missing[h.PublicKey]
		delete(missing, h.PublicKey)
		switch {
		case !ok:
			p.extra = append(p.extra, h.PublicKey)
		case !h.SameConfig(w):
			p.changed = append(p.changed, w)
		}
	}
	for _, w := range missing {
		p.missing = append(p.missing, w)
	}
	return p, nil
}

// equalize makes the interface hold exactly the wanted peers. Peers that were
// missing get their last endpoints, so that the server can speak first.
func (l *lane) equalize(ctx context.Context, want map[id.Device]wanted, index int, book *wgdev.EndpointBook) (difference, error) {
	p, err := l.compare(ctx, want, index, book)
	if err != nil {
		return difference{}, err
	}
	if len(p.extra) > 0 { // first: they may hold addresses that others get
		if err := l.remove(ctx, p.extra...); err != nil {
			return difference{}, err
		}
	}
	if add := append(p.changed, book.Fill(p.missing)...); len(add) > 0 {
		if err := l.upsert(ctx, add...); err != nil {
			return difference{}, err
		}
	}
	return p.difference(), nil
}
