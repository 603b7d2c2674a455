"""What go-runc's and conmon's receivers do: listen at argv[1], take one fd with its name from a single message, answer over the terminal. Says what it got."""
import os, socket, struct, sys, fcntl, termios

server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(1)
print('ready', flush=True)
connection, _ = server.accept()
name, fds, flags, _ = socket.recv_fds(connection, 4096, 1)
end = connection.recv(1)
rows, columns, _, _ = struct.unpack('HHHH', fcntl.ioctl(fds[0], termios.TIOCGWINSZ, b'\0' * 8))
print(name.decode(), len(fds), flags & socket.MSG_CTRUNC, len(end), rows, columns, flush=True)
os.write(fds[0], b'hello\n')
text = b''
while b'end' not in text:
    try:
        text += os.read(fds[0], 4096)
    except OSError:
        break
print(text.decode().replace('\r\n', '|'), flush=True)
