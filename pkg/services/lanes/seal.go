package lanes

import (
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/link"
)

// sealed tells whether the kernel itself refuses to forward what comes from this
// lane, which is wanted of lane tor alone.
func (l *lane) sealed() (ok bool, err error) {
	ok = true
	err = l.routing(func(links *link.Links) (err error) {
		ok, err = links.Prohibited(l.cfg.Interface)
		return err
	})
	return ok && err == nil, err
}

// seal makes lane tor's routing rule, the lock that needs neither nftables nor
// us.
func (l *lane) seal() error {
	return l.routing(func(links *link.Links) error { return links.Prohibit(l.cfg.Interface) })
}

// unseal takes the rule back. No interface of that name may be left.
func (l *lane) unseal() error {
	return l.routing(func(links *link.Links) error { return links.Unprohibit(l.cfg.Interface) })
}

// routing does something about lane tor's routing rule; other lanes have none.
func (l *lane) routing(do func(*link.Links) error) error {
	if l.name != api.Tor {
		return nil
	}
	l.route.Lock()
	defer l.route.Unlock()
	if l.links == nil {
		links, err := link.Open()
		if err != nil {
			return err
		}
		l.links = links
	}
	err := do(l.links)
	if err != nil { // perhaps of the handle
		l.closeLinks()
	}
	return err
}

// forget lets go of what is kept open for the routing rule.
func (l *lane) forget() {
	l.route.Lock()
	defer l.route.Unlock()
	l.closeLinks()
}

// closeLinks lets go of the handle; the next use opens another. The caller holds
// route.
func (l *lane) closeLinks() {
	if l.links != nil {
		l.links.Close()
		l.links = nil
	}
}
