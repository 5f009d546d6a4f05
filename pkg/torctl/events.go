package torctl

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

// eventBuffer is how many events wait for a slow reader before some are lost.
const eventBuffer = 16384

var never time.Time

type subscriber struct {
	codes []string
	ch    chan Event
	lost  int
	stop  func() bool
}

// hub hands events to subscribers.
type hub struct {
	turn    chan struct{} // one SETEVENTS at a time
	waiting atomic.Bool   // a SETEVENTS is unanswered
	reply   chan *control.Response

	mu     sync.Mutex
	subs   map[*subscriber]bool
	closed bool
}

func (h *hub) init() {
	h.turn, h.reply = make(chan struct{}, 1), make(chan *control.Response, 1)
	h.subs = map[*subscriber]bool{}
}

func (h *hub) add(s *subscriber) (codes []string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	h.subs[s] = true
	set := map[string]bool{}
	for s := range h.subs {
		for _, c := range s.codes {
			set[c] = true
		}
	}
	return slices.Sorted(maps.Keys(set)), true
}

func (h *hub) drop(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[s] {
		delete(h.subs, s)
		close(s.ch)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		delete(h.subs, s)
		close(s.ch)
		if s.stop != nil {
			s.stop()
		}
	}
}

func (h *hub) send(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if !slices.Contains(s.codes, e.Code) {
			continue
		}
		e.Lost = s.lost
		select {
		case s.ch <- e:
			s.lost = 0
		default:
			s.lost++
		}
	}
}

// Events subscribes to events by their codes (CIRC, STREAM, STATUS_CLIENT...).
// The channel is closed when ctx ends or the client breaks. A reader that
// falls more than 16384 events behind loses the newest; the next one it gets
// says how many in Lost. NotFound means that tor knows no such event.
func (c *Client) Events(ctx context.Context, codes ...string) (<-chan Event, error) {
	if len(codes) == 0 {
		return nil, fault.InvalidField("codes", "name at least one event")
	}
	for _, code := range codes {
		if !isKey(code) {
			return nil, fault.InvalidField("codes", "%q is no event code", code)
		}
	}
	if err := c.lock(ctx, c.hub.turn); err != nil {
		return nil, err
	}
	defer func() { <-c.hub.turn }()
	s := &subscriber{codes: slices.Clone(codes), ch: make(chan Event, eventBuffer)}
	all, ok := c.hub.add(s)
	if !ok {
		<-c.done
		return nil, c.err
	}
	if err := c.setEvents(ctx, "SETEVENTS "+strings.Join(all, " ")); err != nil {
		c.hub.drop(s)
		return nil, err
	}
	c.hub.mu.Lock()
	s.stop = context.AfterFunc(ctx, func() { c.hub.drop(s) })
	c.hub.mu.Unlock()
	return s.ch, nil
}

// setEvents writes without bine, whose SendRequest would take the replies and
// events from under readEvents.
func (c *Client) setEvents(ctx context.Context, line string) error {
	if err := checkLine(line); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	deadline, _ := wait.Deadline()
	_ = c.ev.lim.SetWriteDeadline(deadline)
	c.hub.waiting.Store(true)
	if err := c.ev.text.PrintfLine("%s", line); err != nil {
		return c.broken(ctx, err)
	}
	select {
	case resp := <-c.hub.reply:
		if !resp.IsOk() {
			return refusal(line, resp)
		}
		return nil
	case <-c.done:
		return c.err
	case <-wait.Done():
		c.fail(wait.Err())
		return fault.From(wait.Err())
	}
}

// readEvents is the only reader of the event connection.
func (c *Client) readEvents() {
	defer close(c.ended)
	defer c.hub.close()
	for {
		c.ev.lim.total = 0
		resp, err := c.ev.bine.ReadResponse()
		if c.ev.lim.err != nil {
			err = c.ev.lim.err
		}
		switch {
		case err != nil:
			c.fail(err)
			return
		case resp.IsAsync():
			// An event that cannot be read is not worth the connection.
			if e, err := ParseEvent(eventText(resp)); err == nil {
				c.hub.send(e)
			}
		case c.hub.waiting.CompareAndSwap(true, false):
			c.hub.reply <- resp
		default:
			c.fail(errDesync)
			return
		}
	}
}

// eventText joins the lines of an event, without the "OK" that ends one of
// more than one line.
func eventText(resp *control.Response) string {
	if len(resp.Data) == 0 {
		return resp.Reply
	}
	lines := resp.Data
	if resp.Reply != "OK" && resp.Reply != "" {
		lines = resp.DataWithReply()
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "\r\n", "\n")
}
