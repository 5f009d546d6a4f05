package torctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/cretz/bine/control"
)

// stream asks for one value and gives its lines one by one, so that megabytes
// never lie in memory, as they would several times over in bine's reply. each
// must not keep its argument and must not ask the client for anything.
func (c *Client) stream(ctx context.Context, key string, each func(line []byte)) error {
	if err := c.lock(ctx, c.turn); err != nil {
		return err
	}
	defer func() { <-c.turn }()
	refused, err := c.cmd.stream(ctx, key, each)
	if err != nil {
		return c.broken(ctx, err)
	}
	if refused != nil {
		return refusal("GETINFO", refused)
	}
	return nil
}

// lines is stream for what is kept whole; nil without any.
func (c *Client) lines(ctx context.Context, key string) (all []string, err error) {
	err = c.stream(ctx, key, func(line []byte) { all = append(all, string(line)) })
	if err != nil {
		return nil, err
	}
	return all, nil
}

// stream breaks the wire on any error; refused is tor's.
func (w *wire) stream(ctx context.Context, key string, each func(line []byte)) (refused *control.Response, err error) {
	defer w.arm(ctx, bulkTimeout)()
	if w.text.R.Buffered() > 0 {
		return nil, errDesync
	}
	w.lim.total, w.lim.maxTotal = 0, maxBulk
	defer func() {
		w.lim.maxTotal = maxReply
		if w.lim.err != nil { // ReadLine swallows it
			err = w.lim.err
		}
	}()
	if err := w.text.PrintfLine("GETINFO %s", key); err != nil {
		return nil, err
	}
	head, err := w.text.ReadLine()
	if err != nil {
		return nil, err
	}
	if value, ok := strings.CutPrefix(head, "250-"+key+"="); ok {
		if value != "" {
			each([]byte(value))
		}
	} else if head == "250+"+key+"=" {
		body := bufio.NewScanner(w.text.DotReader())
		body.Buffer(nil, maxLine)
		for body.Scan() {
			if len(body.Bytes()) > 0 {
				each(body.Bytes())
			}
		}
		if err := body.Err(); err != nil {
			return nil, err
		}
	} else {
		code, err := strconv.Atoi(head[:min(3, len(head))])
		if err != nil || code < 400 || code > 599 || len(head) < 4 || head[3] != ' ' {
			return nil, fmt.Errorf("GETINFO %s: another value came", key)
		}
		return &control.Response{Err: &textproto.Error{Code: code, Msg: head[4:]}, Reply: head[4:]}, nil
	}
	last, err := w.text.ReadLine()
	if err == nil && last != "250 OK" {
		err = errors.New("a reply without an end")
	}
	return nil, err
}
