package torctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

// Circuits lists tor's circuits.
func (c *Client) Circuits(ctx context.Context) ([]Circuit, error) {
	return list(ctx, c, "circuit-status", "CIRC", Event.Circuit)
}

// Streams lists tor's streams, without their Source and Purpose.
func (c *Client) Streams(ctx context.Context) ([]Stream, error) {
	return list(ctx, c, "stream-status", "STREAM", Event.Stream)
}

func list[T any](ctx context.Context, c *Client, key, code string, read func(Event) (T, bool)) ([]T, error) {
	v, err := c.getInfo(ctx, key)
	if err != nil || v[0] == "" {
		return nil, err
	}
	var all []T
	for line := range strings.SplitSeq(v[0], "\n") {
		e, err := ParseEvent(code + " " + strings.TrimSpace(line))
		if err != nil {
			return nil, garbled(key)
		}
		t, ok := read(e)
		if !ok {
			return nil, garbled(key)
		}
		all = append(all, t)
	}
	return all, nil
}

// CloseCircuit closes a circuit and the streams on it.
func (c *Client) CloseCircuit(ctx context.Context, id string) error {
	return c.onID(ctx, "CLOSECIRCUIT", id)
}

// CloseStream closes a stream, with the reason MISC.
func (c *Client) CloseStream(ctx context.Context, id string) error {
	return c.onID(ctx, "CLOSESTREAM", id, "1")
}

// AttachStream puts a stream that waits on a circuit; "0" lets tor choose.
// Conflict means that the stream is not the controller's to attach.
func (c *Client) AttachStream(ctx context.Context, id, circuit string) error {
	if !isID(circuit) {
		return fault.InvalidField("circuit", "%q is no circuit id", circuit)
	}
	return c.onID(ctx, "ATTACHSTREAM", id, circuit)
}

// OpenCircuit gives a circuit whose path was given to ExtendCircuit the purpose
// general, which a stream that only looks up a name needs: tor 0.4.9 ends
// itself, by an assertion, when one is attached to a controller's circuit. From
// then on tor may choose the circuit for streams too, until it carries one.
func (c *Client) OpenCircuit(ctx context.Context, id string) error {
	return c.onID(ctx, "SETCIRCUITPURPOSE", id, "purpose=general")
}

func (c *Client) onID(ctx context.Context, verb, id string, more ...string) error {
	if !isID(id) {
		return fault.InvalidField("id", "%q is no id", id)
	}
	return c.do(ctx, strings.Join(append([]string{verb, id}, more...), " "), nil)
}

// ExtendCircuit starts a new circuit through the relays of path, each a
// fingerprint (with or without $) or a nickname; an empty path lets tor
// choose. tor puts no streams of its own choice on a circuit whose path was
// given. The circuit is usable when a CIRC event says BUILT.
func (c *Client) ExtendCircuit(ctx context.Context, path []string) (id string, err error) {
	line := "EXTENDCIRCUIT 0"
	for i, relay := range path {
		fp := strings.TrimPrefix(relay, "$")
		switch {
		case CheckFingerprint(fp) == nil:
			relay = "$" + fp
		case !isWord(relay, 19): // a nickname: dir-spec, section 2.1.1
			return "", fault.InvalidField("path", "%q is neither a fingerprint nor a nickname", relay)
		}
		line += map[bool]string{true: " ", false: ","}[i == 0] + relay
	}
	if len(path) > 0 {
		line += " purpose=controller"
	}
	err = c.do(ctx, line, func(r *control.Response) error {
		got, ok := strings.CutPrefix(r.Reply, "EXTENDED ")
		if !ok || !isID(got) {
			return fmt.Errorf("EXTENDCIRCUIT: another reply came")
		}
		id = got
		return nil
	})
	return id, err
}

// isID holds for the ids of circuits and streams (control-spec, section 2.4).
func isID(s string) bool { return isWord(s, 16) }

func isWord(s string, most int) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= most
}
