"""What an agent must know to act in WebShop."""

MANUAL = """\
You shop on a website for a product that fits an instruction: its kind, attributes, options such \
as colour and size, and an upper price.
Each action is one of two commands:
- search[WORDS], such as `search[red cotton shirt for men]`: on the front page, type a query
- click[TEXT], such as `click[back to search]`: press a button or follow a link of the page, by \
its text. On a page of results, click a product's code, or `click[next >]` and `click[< prev]`. \
On a product's page, click an option, such as `click[red]`, to choose it; \
`click[description]`, `click[features]` and `click[reviews]` show more; `click[buy now]` buys.
Each turn answers with the text of the page, its parts separated by [SEP]. An action that the page \
does not offer leaves it as it is.
The episode ends when you buy, or at the turn limit. The score compares the bought product and \
its chosen options with the instruction; 1 means that everything fits."""
