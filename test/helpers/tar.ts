/** Archives of every kind, malicious ones too: the writer that the image suite has. */
export * from '@engine/core/contracts/image/suite';
