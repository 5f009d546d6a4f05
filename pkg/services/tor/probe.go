package tor

import (
	"context"
	"errors"
	"time"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/torctl"
)

const (
	probeTries    = 3 // failures in a row that count
	probeCircuits = 4 // tried in one probe
	probeTimeout  = 10 * time.Second
	probeRetry    = 5 * time.Second
)

// probeState counts probes since all else became well: the first must succeed.
type probeState struct {
	good   bool
	failed int // in a row
	last   api.Probe
}

func (p probeState) next(last api.Probe) probeState {
	p.last = last
	if last.OK {
		p.good, p.failed = true, 0
	} else if p.failed++; p.failed >= probeTries {
		p.good = false
	}
	return p
}

func (s *Service) probeLoop(ctx context.Context) {
	var due time.Time
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.mu.Lock()
		why, _ := s.obs.unwell(s.wish)
		c, fresh := s.client, !s.obs.probe.good && s.obs.probe.failed == 0
		s.mu.Unlock()
		if why != "" || c == nil || (!fresh && time.Now().Before(due)) {
			continue
		}
		at := time.Now()
		err := probe(ctx, c)
		if ctx.Err() != nil {
			return
		}
		utc := at.UTC()
		last := api.Probe{OK: err == nil, At: &utc, TookMs: time.Since(at).Milliseconds()}
		due = at.Add(s.cfg.ProbeEvery.D())
		if err != nil {
			last.Message, due = err.Error(), at.Add(min(s.cfg.ProbeEvery.D(), probeRetry))
		}
		s.observe(func(o *observation) {
			if why, _ := o.unwell(s.wish); why == "" && s.client == c {
				o.probe = o.probe.next(last)
			}
		})
	}
}

// errCircuit is a circuit that did not come about, which a single relay can cause.
var errCircuit = errors.New("the circuit failed")

// probe has tor build a circuit of its own choosing. Where relays have gone that
// are listed still, it takes more than one, as it does for a user.
func probe(ctx context.Context, c *torctl.Client) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for range probeCircuits - 1 {
		if err := probeOne(ctx, c); !errors.Is(err, errCircuit) {
			return err
		}
	}
	return probeOne(ctx, c)
}

// probeOne builds one circuit and closes it.
func probeOne(ctx context.Context, c *torctl.Client) error {
	id, err := c.ExtendCircuit(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.CloseCircuit(ctx, id)
	}()
	for {
		all, err := c.Circuits(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, circ := range all {
			if found = circ.ID == id; found {
				if circ.Status == "BUILT" {
					return nil
				}
				break
			}
		}
		if !found {
			return errCircuit
		}
		select {
		case <-ctx.Done():
			return errors.New("no circuit within 10 s")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
