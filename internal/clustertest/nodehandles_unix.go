//go:build unix

package clustertest

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/go-cluster/cluster"
)

// ServeHandle takes the handle that came with m, as the kind that what names, and answers on it.
// It answers a connection, or the connections of a listener, with "go", the text of the message
// and what the client sends until it shuts down. It answers a datagram with "go" and the
// datagram. The caller closes what ServeHandle returns.
func ServeHandle(m cluster.Message, what string) (io.Closer, error) {
	var text struct{ Text string }
	m.Decode(&text)
	answer := func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "go %s %s", text.Text, b)
	}
	switch what {
	case "socket":
		c, err := m.Conn()
		if err == nil {
			go answer(c)
		}
		return c, err
	case "server":
		ln, err := m.Listener()
		if err != nil {
			return nil, err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				answer(c)
			}
		}()
		return ln, nil
	case "dgram":
		c, err := m.PacketConn()
		if err != nil {
			return nil, err
		}
		go func() {
			b := make([]byte, 1500)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo(fmt.Appendf(nil, "go %s", b[:n]), from)
			}
		}()
		return c, nil
	}
	return nil, fmt.Errorf("serve a %s", what)
}

// doHandles is what a guest does with handles.
func doHandles(o GuestOrder) GuestAnswer {
	switch o.Do {
	case "take":
		takeHandles()
	case "send handle":
		return guestError(sendHandle(o))
	default:
		return GuestAnswer{Err: "unknown order " + o.Do}
	}
	return GuestAnswer{}
}

// takeHandles lets a guest serve the handles of all messages.
func takeHandles() {
	cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		var what struct{ What string }
		m.Decode(&what)
		if what.What != "" {
			_, err := ServeHandle(m, what.What)
			Must(err)
			Must(w.Send(map[string]string{"took": what.What}))
		}
	})
}

// sendHandle makes a guest send the handle o.Text for o.Address to the primary, between plain
// messages.
func sendHandle(o GuestOrder) error {
	Must(cluster.Worker.Send(map[string]string{"plain": "before"}))
	defer func() { Must(cluster.Worker.Send(map[string]string{"plain": "behind"})) }()
	send := func(h any) error { return cluster.Worker.SendHandle(map[string]string{"what": o.Text}, h) }
	switch o.Text {
	case "socket":
		c, err := net.Dial("tcp", o.Address)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, o.N)); err != nil {
			return err
		}
		return send(c)
	case "server":
		ln, err := net.Listen("tcp", o.Address)
		if err != nil {
			return err
		}
		defer ln.Close()
		return send(ln)
	case "dgram":
		c, err := net.ListenPacket("udp4", o.Address)
		if err != nil {
			return err
		}
		defer c.Close()
		return send(c)
	}
	defer os.Stdin.Close()
	return send(os.Stdin)
}
