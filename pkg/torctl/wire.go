package torctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/textproto"
	"os"
	"time"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

const (
	// DefaultTimeout bounds one command; an earlier deadline of the context wins.
	DefaultTimeout = 3 * time.Second
	// bulkTimeout bounds a command whose reply may be megabytes.
	bulkTimeout = 20 * time.Second

	maxReply = 8 << 20 // bytes in one reply or event
	// maxBulk is the limit of a reply that is read line by line: all
	// microdescriptors of the public network are near 10 MB.
	maxBulk = 64 << 20
	maxLine = 1 << 20 // bytes in one line, either way
	// Before authentication the limit is small: bine unquotes the cookie's
	// path in quadratic time.
	maxHello   = 16 << 10
	cookieSize = 32 // control-spec, section 3.24
)

var (
	errHuge   = errors.New("reply is larger than allowed")
	errDesync = errors.New("reply that no command asked for")
)

// limited is a connection that refuses to read more than it should. The first
// error is kept, because textproto.Reader.ReadLine swallows the one that ends
// a line early and returns the stump as a whole line.
type limited struct {
	net.Conn
	line, total       int
	maxLine, maxTotal int
	err               error
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.Conn.Read(p)
	l.total += n
	longest := l.line + n
	if last := bytes.LastIndexByte(p[:n], '\n'); last >= 0 {
		longest = l.line + bytes.IndexByte(p[:n], '\n')
		l.line = n - 1 - last
	} else {
		l.line = longest
	}
	if longest > l.maxLine || l.total > l.maxTotal {
		n, err = 0, errHuge
	}
	l.err = err
	return n, err
}

// wire is one connection to the control port.
type wire struct {
	lim  *limited
	text *textproto.Conn
	bine *control.Conn
}

func dialWire(ctx context.Context, path string) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "cannot reach tor's control socket %s", path)
	}
	lim := &limited{Conn: nc, maxLine: maxHello, maxTotal: maxHello}
	text := textproto.NewConn(lim)
	w := &wire{lim: lim, text: text, bine: control.NewConn(text)}
	if err := w.authenticate(ctx); err != nil {
		nc.Close()
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fault.Wrap(err, fault.Timeout, "tor did not answer on %s in time", path)
		}
		return nil, fault.Wrap(err, fault.Unavailable, "authenticate to tor on %s", path)
	}
	lim.maxLine, lim.maxTotal = maxLine, maxReply
	return w, nil
}

func (w *wire) authenticate(ctx context.Context) error {
	defer w.arm(ctx, DefaultTimeout)()
	pi, err := w.bine.ProtocolInfo()
	if err = errors.Join(err, w.lim.err); err != nil {
		return err
	}
	// bine reads the file whole and without a deadline: a pipe would hang it.
	if pi.CookieFile != "" && !pi.HasAuthMethod("NULL") {
		fi, err := os.Stat(pi.CookieFile)
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || fi.Size() != cookieSize {
			return errors.New("the cookie is not a file of 32 bytes")
		}
	}
	return errors.Join(w.bine.Authenticate(""), w.lim.err)
}

// arm sets the deadline of one exchange and makes ctx cut it short. The
// function it returns ends that, and waits until it cannot hit a later one.
func (w *wire) arm(ctx context.Context, longest time.Duration) func() {
	deadline := time.Now().Add(longest)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	w.lim.SetDeadline(deadline)
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.lim.SetDeadline(time.Unix(1, 0))
		close(fired)
	})
	return func() {
		if !stop() {
			<-fired
		}
	}
}

// request sends one line. A nil response means that the wire is broken; with a
// response, the error is tor's refusal.
func (w *wire) request(ctx context.Context, line string) (*control.Response, error) {
	defer w.arm(ctx, DefaultTimeout)()
	if w.text.R.Buffered() > 0 {
		return nil, errDesync
	}
	w.lim.total = 0
	resp, err := w.bine.SendRequest("%s", line)
	if w.lim.err != nil {
		return nil, w.lim.err
	}
	if resp == nil && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return resp, err
}
