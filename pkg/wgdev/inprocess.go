package wgdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"vpnd/pkg/fault"
)

// inProcess is a driver for wireguard-go in this process.
type inProcess struct {
	mu  sync.Mutex // serialises what is more than one call to dev
	dev *device.Device
}

// NewInProcess makes an interface and a WireGuard device inside this process;
// both end with Close or with the process. The interface is made in the network
// namespace of the calling thread, while the UDP sockets may be opened later by
// any thread: a process that wants both in another namespace must be in it as a
// whole.
func NewInProcess(name string, mtu int) (*Device, error) {
	dev, err := newDevice(name, mtu, false, device.NewLogger(device.LogLevelSilent, ""))
	if err != nil {
		return nil, err
	}
	return &Device{name: name, backend: InProcess, drv: &inProcess{dev: dev}}, nil
}

// newDevice makes the interface and starts a device on it, with the link up, so
// that a port in use is the answer to the call that sets it and not a line in a
// log later.
func newDevice(name string, mtu int, persist bool, log *device.Logger) (*device.Device, error) {
	if err := checkInterface(name, mtu); err != nil {
		return nil, err
	}
	tun, err := openTUN(name, mtu, persist)
	if err != nil {
		return nil, err
	}
	dev := device.NewDevice(summed{tun}, conn.NewDefaultBind(), log)
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("start WireGuard on %s: %w", name, err)
	}
	return dev, nil
}

// checkInterface refuses names that the kernel would refuse or that mean
// something in a path.
func checkInterface(name string, mtu int) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return fault.InvalidField("interface", "%q is not an interface name: 1 to 15 characters", name)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%' {
			return fault.InvalidField("interface", "%q is not an interface name: letters, digits, '-', '_' and '.'", name)
		}
	}
	if mtu < 576 || mtu > 65535-80 {
		return fault.InvalidField("mtu", "%d is not between 576 and 65455", mtu)
	}
	return nil
}

func (p *inProcess) program(ctx context.Context, c change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := c.appendSet(nil)
	defer clear(text)
	return ipcError(p.dev.IpcSetOperation(bytes.NewReader(text)))
}

func (p *inProcess) read(ctx context.Context) (deviceState, error) {
	if err := ctx.Err(); err != nil {
		return deviceState{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var text bytes.Buffer
	if err := p.dev.IpcGetOperation(&text); err != nil {
		return deviceState{}, ipcError(err)
	}
	defer clear(text.Bytes())
	return parseGet(text.Bytes())
}

// ipcError gives the device's own errors the form that those of a daemon have.
func ipcError(err error) error {
	var ipc *device.IPCError
	if errors.As(err, &ipc) {
		return errors.Join(uapiError(ipc.ErrorCode()), ipc.Unwrap())
	}
	return err
}

func (p *inProcess) close() error {
	p.dev.Close()
	return nil
}
