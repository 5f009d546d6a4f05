package tor

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/rpc"
	"vpnd/pkg/torctl"
	"vpnd/pkg/torpath"
)

// refreshEvery is how often tor is asked whether it has a new consensus.
const refreshEvery = 5 * time.Second

// book is what is known of the network: the relays of tor's consensus, and the
// guards that tor uses now.
type book struct {
	mu        sync.Mutex
	consensus *torpath.Consensus
	exits     bool // it has some; before tor has a consensus, guards of before may be all it knows
	guards    []string
	after     string    // valid-after of the consensus
	since     time.Time // when that was seen first
	read      int       // times it was read
}

// path chooses the relays of a circuit.
func (b *book) path(e torpath.Exits, t torpath.Target, avoid map[string]bool) ([]string, error) {
	b.mu.Lock()
	consensus, guards := b.consensus, b.guards
	b.mu.Unlock()
	if consensus == nil {
		return nil, torpath.ErrNoExit
	}
	return consensus.Path(guards, e, t, avoid, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
}

// relays is the consensus, empty before there is one.
func (b *book) relays() *torpath.Consensus {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.consensus == nil {
		return torpath.New(nil, true)
	}
	return b.consensus
}

// follow keeps the book true until the connection or ctx ends.
func (b *book) follow(ctx context.Context, c *torctl.Client) {
	for {
		_ = b.refresh(ctx, c) // what was known before is the best there is
		select {
		case <-ctx.Done():
			return
		case <-c.Done():
			return
		case <-time.After(b.patience()):
		}
	}
}

// ready says that exits are known, from which a choice can be met.
func (b *book) ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.exits
}

func (b *book) patience() time.Duration {
	if b.ready() {
		return refreshEvery
	}
	return 250 * time.Millisecond
}

// settle is when a new consensus is read again: its descriptors come later, and
// relays without are left out.
var settle = []time.Duration{0, 10 * time.Second, time.Minute, 5 * time.Minute}

func (b *book) refresh(ctx context.Context, c *torctl.Client) error {
	guards, err := usedGuards(ctx, c)
	if err != nil {
		return err
	}
	after, err := c.ConsensusValidAfter(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.guards = guards
	if after != b.after {
		b.after, b.since, b.read = after, time.Now(), 0
	}
	due := b.read < len(settle) && time.Since(b.since) >= settle[b.read]
	b.mu.Unlock()
	if !due {
		return nil
	}
	consensus, err := c.Consensus(ctx)
	if err != nil {
		return err
	}
	b.take(consensus)
	return nil
}

func (b *book) take(consensus *torpath.Consensus) {
	exits := consensus.Usable(torpath.Exits{}) > 0
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consensus, b.exits = consensus, exits
	if exits {
		b.read++
	}
}

// usedGuards are the first relays of the circuits that tor chose itself, the
// one it uses most first; where it has none, the guards that it has used.
func usedGuards(ctx context.Context, c *torctl.Client) ([]string, error) {
	circuits, err := c.Circuits(ctx)
	if err != nil {
		return nil, err
	}
	uses := map[string]int{}
	var out []string
	for _, circ := range circuits {
		if circ.Status != "BUILT" || len(circ.Path) < 3 {
			continue
		}
		fp := circ.Path[0].Fingerprint
		if uses[fp] == 0 {
			out = append(out, fp)
		}
		uses[fp]++
	}
	slices.SortStableFunc(out, func(x, y string) int { return uses[y] - uses[x] })
	guards, err := c.EntryGuards(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range guards {
		if g.State == "up" && !slices.Contains(out, g.Fingerprint) {
			out = append(out, g.Fingerprint)
		}
	}
	return out, nil
}

// listRelays gives as many as asked for; the total counts all that match.
func (s *Service) listRelays(r *api.RelayRequest) *rpc.List[api.Relay] {
	out := &rpc.List[api.Relay]{Items: []api.Relay{}}
	for _, relay := range s.book.relays().Relays() {
		if r.Exit && !relay.Exit || r.Country != "" && !strings.EqualFold(r.Country, relay.Country) {
			continue
		}
		if out.Total++; len(out.Items) >= r.Limit {
			continue
		}
		out.Items = append(out.Items, api.Relay{
			Fingerprint: relay.Fingerprint, Nickname: relay.Nickname, Address: relay.Addr, IPv6: relay.Exit6,
			Country: relay.Country, Bandwidth: relay.Bandwidth, Flags: relay.Flags, Exit: relay.Exit,
		})
	}
	return out
}
