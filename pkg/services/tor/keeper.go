package tor

import (
	"context"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

const (
	backoffMin, backoffMax = 200 * time.Millisecond, 30 * time.Second
	answerWithin           = 3 * time.Second
	startWithin            = 30 * time.Second // until the first answer
	hungFor                = 10 * time.Second // then it is killed
	refusedFor             = 30 * time.Second // until a refused torrc is tried again
)

// keeper owns the process; only its goroutine touches its fields.
type keeper struct {
	*Service
	proc     *process
	answers  time.Time // last answer, or when it was started or adopted
	answered bool      // at all
	hung     time.Time
	backoff  time.Duration
	retry    time.Time
	booted   bool
	serving  sync.WaitGroup // the goroutines of the connection to tor
	refused  struct {       // a torrc that tor did not take
		torrc string
		until time.Time
	}
}

// adopt takes over the tor of an earlier run.
func (k *keeper) adopt() {
	if k.proc = adopt(k.paths); k.proc == nil {
		return
	}
	k.log.Info("tor.adopted", "pid", k.proc.PID)
	k.answers, k.answered = time.Now(), true
	k.mu.Lock()
	k.gateways, k.obs.gateways = k.proc.Gateways, len(k.proc.Gateways) > 0
	k.hold = time.Now().Add(lease / 2)
	k.show()
	k.mu.Unlock()
}

// show puts the process into the status; mu is held.
func (k *keeper) show() {
	k.status.PID, k.status.StartedAt = 0, nil
	if k.proc != nil {
		at := k.proc.At
		k.status.PID, k.status.StartedAt = k.proc.PID, &at
	}
}

func (k *keeper) run(ctx context.Context) {
	defer k.disconnect()
	for ctx.Err() == nil {
		k.step(ctx)
		k.mu.Lock()
		wait, c := 250*time.Millisecond, k.client
		if k.status.Lane == string(lanes.TorUp) {
			wait = time.Second
		}
		k.mu.Unlock()
		var lost, exited <-chan struct{}
		if c != nil {
			lost = c.Done()
		}
		if k.proc != nil {
			exited = k.proc.exited
		} else if d := time.Until(k.retry); d > 0 && d < wait {
			wait = d
		}
		select {
		case <-ctx.Done():
		case <-lost:
		case <-exited:
		case <-k.kick:
		case <-time.After(wait):
		}
	}
}

// step brings the process one step nearer to the wish, and looks.
func (k *keeper) step(ctx context.Context) {
	k.mu.Lock()
	w, gws := k.wish, k.gateways
	k.mu.Unlock()
	switch {
	case w.Process == processStop:
		if k.proc != nil {
			if err := k.proc.stop(syscall.SIGTERM, 5*time.Second); err != nil {
				k.log.Error("tor.stop_failed", "err", err)
				return
			}
			k.log.Info("tor.stopped")
			k.publish(events.Event{Type: "tor.stopped"})
		}
		k.gone(api.ProcessStopped, "", "")
		k.backoff, k.retry = 0, time.Time{}
	case k.proc != nil && !k.proc.alive():
		why := first(lastWords(k.paths), first(k.proc.end(), "it ended"))
		k.publish(events.Event{Type: "tor.died", Message: why})
		k.log.Warn("tor.died", "pid", k.proc.PID, "why", why)
		k.again(why)
	case k.proc != nil:
		k.look(ctx, gws)
	case len(gws) > 0 && !time.Now().Before(k.retry):
		k.launch(gws)
	}
}

// again notes that the process is gone against the wish.
func (k *keeper) again(why string) {
	k.backoff = min(max(2*k.backoff, backoffMin), backoffMax)
	k.retry = time.Now().Add(k.backoff)
	k.gone(api.ProcessFailed, why, "see "+k.paths.notice())
	k.mu.Lock()
	k.status.Restarts++
	k.mu.Unlock()
}

func (k *keeper) gone(state api.ProcessState, why, hint string) {
	k.disconnect()
	k.proc, k.answered, k.booted, k.hung = nil, false, false, time.Time{}
	k.mu.Lock()
	k.show()
	k.status.RxBytes, k.status.TxBytes = 0, 0
	k.mu.Unlock()
	k.observe(func(o *observation) {
		*o = observation{process: state, why: why, hint: hint, gateways: o.gateways}
	})
}

func (k *keeper) launch(gws []netip.Addr) {
	fail := func(state api.ProcessState, why, hint string) {
		k.backoff = min(max(2*k.backoff, backoffMin), backoffMax)
		k.retry = time.Now().Add(k.backoff)
		k.gone(state, why, hint)
	}
	binary, why := torctl.FindTor(k.cfg.Binary)
	if why != "" {
		fail(api.ProcessMissing, why, torctl.InstallHint)
		return
	}
	if addr := portTaken(k.cfg, gws); addr != "" {
		fail(api.ProcessFailed, addr+" is taken by another program", "see 'ss -lntup'")
		return
	}
	isolation := k.settings.Load().Isolation
	p, err := start(binary, k.paths, torrc(k.cfg, k.paths, gws, isolation, k.bridges.TorrcLines()), isolation, gws)
	if err != nil {
		fail(api.ProcessFailed, err.Error(), fault.From(err).Hint)
		return
	}
	k.proc, k.answers = p, time.Now()
	k.mu.Lock()
	k.show()
	k.mu.Unlock()
	k.publish(events.Event{Type: "tor.started"})
	k.log.Info("tor.started", "pid", p.PID)
	k.observe(func(o *observation) { *o = observation{process: api.ProcessStarting, gateways: o.gateways} })
}

func (k *keeper) disconnect() {
	k.mu.Lock()
	c := k.client
	k.client, k.attacher = nil, nil
	k.mu.Unlock()
	if c != nil {
		_ = c.Close()
		k.serving.Wait() // the journal has one writer
	}
}

// look asks tor how it is, and deals with one that does not answer.
func (k *keeper) look(ctx context.Context, gws []netip.Addr) {
	err := k.question(ctx, gws)
	if err == nil || ctx.Err() != nil {
		return
	}
	k.disconnect()
	patience := answerWithin
	if !k.answered {
		patience = startWithin
	}
	if time.Since(k.answers) < patience {
		return
	}
	if k.hung.IsZero() {
		k.hung = time.Now()
		k.log.Warn("tor.hung", "err", err)
		k.publish(events.Event{Type: "tor.hung", Message: err.Error()})
		k.observe(func(o *observation) {
			*o = observation{process: api.ProcessHung, why: err.Error(), hint: "it is restarted by itself", gateways: o.gateways}
		})
	}
	if time.Since(k.hung) >= hungFor {
		if err := k.proc.stop(syscall.SIGKILL, 5*time.Second); err != nil {
			k.log.Error("tor.stop_failed", "err", err)
			return
		}
		k.again("it did not answer and was ended")
	}
}

func (k *keeper) question(ctx context.Context, gws []netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if missing(k.paths.socket()) {
		return errNoSocket
	}
	k.mu.Lock()
	c := k.client
	k.mu.Unlock()
	if c == nil {
		var err error
		if c, err = k.connect(ctx); err != nil {
			return err
		}
	}
	bridged := k.bridges.Enabled() // before tor is given them: what is seen below may be older, never newer
	if err := k.reload(ctx, c, gws); err != nil {
		return err
	}
	b, err := c.Bootstrap(ctx)
	if err != nil {
		return err
	}
	h, err := c.Health(ctx)
	if err != nil {
		return err
	}
	k.answers, k.answered, k.hung = time.Now(), true, time.Time{}
	if err := shorten(k.paths); err != nil {
		k.log.Warn("tor.log_not_shortened", "err", err)
	}
	if b.Percent == 100 {
		k.backoff = 0
		if !k.booted {
			k.booted = true
			k.log.Info("tor.bootstrapped")
			k.publish(events.Event{Type: "tor.bootstrapped"})
		}
	}
	k.observe(func(o *observation) {
		k.status.RxBytes, k.status.TxBytes = h.RxBytes, h.TxBytes
		o.process, o.why, o.hint, o.bridges = api.ProcessRunning, "", "", bridged
		o.relays = k.book.ready() || len(k.settings.Load().Exits) == 0
		o.boot = api.Bootstrap{Percent: b.Percent, Tag: b.Tag, Summary: b.Summary, Warning: b.Warning}
		o.dir, o.circuit, o.live = h.EnoughDirInfo, h.CircuitEstablished, h.NetworkLive
		if why, _ := o.unwell(k.wish); why != "" {
			o.probe = probeState{last: o.probe.last}
		}
	})
	return nil
}
